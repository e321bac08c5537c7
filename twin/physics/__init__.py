"""Pure maths that many rooms share: arrays in, arrays out, one definition of each piece of physics."""
