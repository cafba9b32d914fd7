"""Tells what fits an accelerator: abstract shapes, estimates, roofline, ahead-of-time compiling."""
