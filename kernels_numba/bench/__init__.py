"""How fast is it here? Benchmarks and measurements on GPU and CPU, with where, how and on what they were made."""
