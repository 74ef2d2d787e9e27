assert a[row, column] == value, "the word holds the weight of its place"
assert worst <= 1, "the product is right"
assert counted == ordered, "the emulator counts what the encoder promised"
