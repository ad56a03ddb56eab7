"""`zerocon report`: a page about several runs."""
