"""Operations with the same results on every platform; the implementation is chosen by platform."""
