"""LangChain over the server: chats, streams, completions, embeddings.

Usage: langchain_check.py URL COMPLETION_MODEL CHAT_MODEL
"""
import sys

from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings

base_url, model, chat_model = sys.argv[1:4]
common = dict(base_url=base_url, api_key="none", max_retries=0)
chat = ChatOpenAI(model=chat_model, temperature=0, max_tokens=6, seed=1, **common)
answer = chat.invoke("hi")
assert answer.usage_metadata["output_tokens"] > 0, answer
assert "".join(piece.content for piece in chat.stream("hi")) == answer.content
assert len(chat.batch(["a", "b", "c"])) == 3
llm = OpenAI(model=model, temperature=0, max_tokens=6, **common)
text = llm.invoke("the ")
assert "".join(llm.stream("the ")) == text and text
assert llm.generate(["a", "b"]).llm_output["token_usage"]["total_tokens"] > 0
# With the check of lengths, LangChain would send token ids of another vocabulary.
embeddings = OpenAIEmbeddings(model=model, check_embedding_ctx_length=False, **common)
assert len(embeddings.embed_documents(["a", "b c"])) == 2
print("checks passed")
