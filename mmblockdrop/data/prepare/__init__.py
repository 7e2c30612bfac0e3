"""Library of the programs that prepare videos and annotations."""
