"""Nothing missing, or said: the chain of what was read, the filler of its holes, and who notices what nobody tells."""
