"""Studies on real models: what is measured here becomes evidence in `data/measured`."""
