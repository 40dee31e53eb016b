"""How near synthetic patients are to real ones, each number with a reference."""
