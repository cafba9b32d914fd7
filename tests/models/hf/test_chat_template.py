"""Chat templates: as transformers renders them, but within limits."""

import json
import os
import signal
import threading

import pytest

from memr1_jax.models.hf import chat_template
from memr1_jax.models.hf.chat_template import render_messages

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{{ message.content | trim }}<|im_end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}\n  <|im_start|>assistant{% endif %}"
)
LLAMA_LIKE = """
{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = strftime_now("%d %b %Y") %}
{%- endif %}
{%- set ns = namespace(last='') %}
{%- for message in messages %}
    {%- if loop.first and message.role != 'system' %}{% continue %}{% endif %}
    {%- set ns.last = message.role %}
    {%- generation %}{{ message | tojson(indent=2) }}{% endgeneration %}
    {%- if tools is not none %}{{ raise_exception('tools') }}{% endif %}
    {{- loop.index ~ loop.length ~ eos_token }}
{%- endfor %}
{{- date_string ~ ns.last ~ dict(a=1) }}
"""
MESSAGES = [("system", 'be "good" '), ("user", "h\u00e9llo <b>\U0001f642"), ("assistant", "yes")]


@pytest.fixture(scope="module")
def tokenizer():
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    model = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "<s>": 1, "</s>": 2}, []))
    return PreTrainedTokenizerFast(tokenizer_object=model, bos_token="<s>", eos_token="</s>")


def render(tokenizer, template, **variables):
    tokenizer.chat_template = template
    return render_messages(tokenizer, MESSAGES, **variables)


@pytest.mark.parametrize("variables", [{}, {"date_string": "today"}])
@pytest.mark.parametrize("prompt", [True, False])
@pytest.mark.parametrize("template", [CHATML, LLAMA_LIKE])
def test_renders_as_transformers_does(tokenizer, template, prompt, variables):
    rendered = render(tokenizer, template, add_generation_prompt=prompt, **variables)
    assert rendered == tokenizer.apply_chat_template(
        [{"role": role, "content": text} for role, text in MESSAGES],
        tokenize=False,
        add_generation_prompt=prompt,
        **variables,
    )


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for i in range(10**12) %}x{% endfor %}", "Range too big"),
        ("{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}", "writes more than"),
        ("{{ 'x' * 10**12 }}", "too much memory"),
        ("{{ 'x' | center(10**12) }}", "too much memory"),
        ("{{ '%999999999999d' % 1 }}", "too much memory"),
        ("{{ '{:>999999999999}'.format(1) }}", "too much memory"),
        (
            "{% set n = namespace(s='x') %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}"
            "{% endfor %}{{ n.s | length }}",
            "too much memory",
        ),
        ("{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}", "calls itself without end"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe|not safely"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{{ raise_exception('No system role') }}", "No system role"),
        ("{{ 1 + 'a' }}", "unsupported operand"),
        ("{% for", "unexpected"),
    ],
)
def test_what_a_template_may_not_do(tokenizer, template, reason):
    with pytest.raises(ValueError, match=reason):
        render(tokenizer, template)
    assert render(tokenizer, "fine") == "fine"


def test_a_template_that_never_ends_is_ended_in_a_thread_too(tokenizer):
    template = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    found = []

    def run():
        with pytest.raises(ValueError, match="more than 3 seconds of computing") as caught:
            render(tokenizer, template)
        found.append(caught.value)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found
    assert render(tokenizer, "fine") == "fine"


def test_a_process_that_is_gone_is_started_again(tokenizer):
    assert render(tokenizer, "fine") == "fine"
    child = chat_template._PROCESS._child
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert render(tokenizer, "fine") == "fine"


def test_the_process_sees_no_secrets(tokenizer, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hunter2")
    chat_template._PROCESS.stop()
    assert render(tokenizer, "fine") == "fine"
    with open(f"/proc/{chat_template._PROCESS._child.pid}/environ", "rb") as file:
        assert b"hunter2" not in file.read()


def test_templates_that_are_no_text(tokenizer):
    for template in (3, ["x"], {"other": "x"}):
        with pytest.raises(ValueError):
            render(tokenizer, template)
    assert render(tokenizer, {"default": "one of several"}) == "one of several"
    assert json.loads(render(tokenizer, "{{ messages | tojson }}"))[1]["content"] == MESSAGES[1][1]
