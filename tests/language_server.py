"""A small OpenAI-compatible server around a real language model: transformers' Llama, tiny, with random weights.

Completions and chat completions with ``n``, ``stop``, ``seed``, ``logprobs`` and ``usage``, one character a token. As
OpenAI's own, it leaves the stop text and the end-of-text token out of text and log-probabilities. ``LanguageServer``'s
fields make it behave as other servers do. It answers bodies; ``loopback.serve`` puts it on a socket.
"""

import threading
from dataclasses import dataclass, field
from functools import cache

import torch
from loopback import Answer

ALPHABET = "\n 0123456789+-*=abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,:;?()<>/|"
END = len(ALPHABET)  # the number of the end-of-text token
CONTEXT = 2048


@cache
def model():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(**size, vocab_size=END + 1, max_position_embeddings=CONTEXT, initializer_range=0.3)
    return LlamaForCausalLM(config).eval()


@dataclass
class LanguageServer:
    """shows_stop: leaves the stop text in the text; hints: has tokens that are not in the text among its
    log-probabilities; knows_stop: heeds it; continues: goes on with an assistant's message; trims: but without the
    white space at its end; most: choices to a request; logs, counts: gives log-probabilities, usage; refuses: fields
    that are answered by 400; boost: what is added to the logits of a new line and of the end, so that they come."""

    shows_stop: bool = False
    hints: bool = False
    continues: bool = True
    trims: bool = False
    knows_stop: bool = True
    most: int = 100
    logs: bool = True
    counts: bool = True
    refuses: tuple = ()
    boost: dict = field(default_factory=lambda: {"\n": 3.0, "": 2.0})  # added to logits: of a new line, of the end
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, body):
        if odd := [name for name in self.refuses if name in body]:
            return Answer({"error": {"message": f"unsupported parameter {odd[0]}"}}, 400)
        chat = "messages" in body
        prompt = self.template(body["messages"]) if chat else body["prompt"]
        limit = body.get("max_completion_tokens", body.get("max_tokens", 16))
        with self.lock:  # one model, one thread
            made = [self.write(prompt, body, limit, i) for i in range(min(body.get("n", 1), self.most))]
        wanted = self.logs and body.get("logprobs")
        choices = [self.choice(i, chat, wanted, *one[:3]) for i, one in enumerate(made)]
        answer = {"object": "chat.completion" if chat else "text_completion", "choices": choices}
        if self.counts:
            written = sum(one[3] for one in made)
            cached = {"cached_tokens": len(prompt) // 2}
            answer["usage"] = {
                "prompt_tokens": len(prompt),
                "completion_tokens": written,
                "prompt_tokens_details": cached,
            }
        return answer

    def template(self, messages):
        text = "".join(f"<{m['role']}>{m['content']}|" for m in messages)
        if messages[-1]["role"] != "assistant":
            return text + "<assistant>"
        if self.trims:
            return text[:-1].rstrip()
        return text[:-1] if self.continues else text + "<assistant>"

    def choice(self, index, chat, wanted, text, finish, pairs):
        if chat:
            logs = {"content": [{"token": t, "logprob": p} for t, p in pairs]} if wanted else None
            return {"index": index, "message": {"content": text}, "finish_reason": finish, "logprobs": logs}
        logs = {"tokens": [t for t, _ in pairs], "token_logprobs": [p for _, p in pairs]} if wanted else None
        return {"index": index, "text": text, "finish_reason": finish, "logprobs": logs}

    @torch.no_grad()
    def write(self, prompt, body, limit, index):
        """Text, finish reason, tokens with log-probabilities, and how many tokens were drawn."""
        stops = [body["stop"]] if isinstance(body.get("stop"), str) else body.get("stop") or []
        stops = stops if self.knows_stop else []
        draw = torch.Generator().manual_seed(body.get("seed", 0) * 1000 + index)
        tokens = torch.tensor([[ALPHABET.find(c) % END for c in prompt]])
        text, pairs, cache = "", [], None
        for count in range(1, limit + 1):
            out = model()(tokens, past_key_values=cache, use_cache=True)
            cache, logits = out.past_key_values, out.logits[0, -1]
            logits[0] += self.boost["\n"]
            logits[END] += self.boost[""]
            heat = body.get("temperature", 1.0)
            token = int(torch.multinomial((logits / heat).softmax(-1), 1, generator=draw) if heat else logits.argmax())
            said = "</s>" if token == END else ALPHABET[token]
            pairs.append((said, float(logits.log_softmax(-1)[token])))
            if token == END:
                return text, "stop", pairs if self.hints else pairs[:-1], count
            text, tokens = text + said, torch.tensor([[token]])
            if stop := next((s for s in stops if text.endswith(s)), None):
                shown = text if self.shows_stop else text[: -len(stop)]
                return shown, "stop", pairs if self.shows_stop or self.hints else pairs[: -len(stop)], count
        return text, "length", pairs, limit
