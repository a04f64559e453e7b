"""Facts about Shippo. Its library (shippo 3.9.0, a dev dependency, MIT) is the judge of every field."""
