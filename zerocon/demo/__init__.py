"""`zerocon demo`: a page in the browser to edit a picture on. Gradio is only in `page`."""
