"""`zerocon demo`: a page in the browser on which one picture is edited. Gradio is only in `page`."""
