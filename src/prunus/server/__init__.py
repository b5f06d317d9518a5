"""The server: searches behind OpenAI's routes, rewards behind vLLM's (``prunus serve``)."""
