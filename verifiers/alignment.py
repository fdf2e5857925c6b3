"""Whether a forecast shows what the text asks for."""
