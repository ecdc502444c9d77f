"""A base and its experts as task vectors: what fits, one parameter as a layer, names, the cache of factors."""
