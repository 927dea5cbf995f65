"""HTTP for every route: who may call, what a body may be, how errors are answered."""
