"""Options of computing a training, and an estimate of the memory that it takes."""
