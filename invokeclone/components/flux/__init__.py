"""Types shared by FLUX.1 and FLUX.2."""
