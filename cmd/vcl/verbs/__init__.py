"""One small module per verb: parse, ask, print. A verb is imported only when it is used."""
