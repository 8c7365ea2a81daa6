"""A call to a judge: what it costs, what may be asked at once, what was asked before."""
