"""The two large comparisons of the course: scaling, and all methods on equal terms."""
