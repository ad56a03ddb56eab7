"""`zerocon report`: one page about several runs."""
