#!/usr/bin/env python3
"""Golden file for chat templates: what Jinja (PyPI: jinja2) makes of the templates below, which are written here with
the constructs that published chat templates use.

Run by hand:  python -m venv V && V/bin/pip install jinja2 && V/bin/python tests/text/make_template_goldens.py
Writes template_goldens.json beside this script: a list of {name, template, messages, add_generation_prompt, text or
error}. The environment is the one that Transformers sets up.
"""
import datetime
import json
from pathlib import Path

from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = 1718000000  # seconds; a Monday in June 2024


class Generation(Extension):
    """{% generation %} is transparent."""
    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)


def raise_exception(message):
    raise TemplateError(message)


def strftime_now(form):
    return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).strftime(form)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


ENVIRONMENT = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
ENVIRONMENT.filters["tojson"] = tojson
ENVIRONMENT.globals["raise_exception"] = raise_exception
ENVIRONMENT.globals["strftime_now"] = strftime_now

CHAT = [{"role": "system", "content": "  Be brief.\n"}, {"role": "user", "content": "Hi <|eot_id|> \"you\"\n"},
        {"role": "assistant", "content": "Hello! <think>hm</think> How are you?"}, {"role": "user", "content": "Fine, ça va 😀 "}]
CONVERSATIONS = {"chat": CHAT, "no_system": CHAT[1:], "one": CHAT[1:2], "empty": [],
                 "odd": [{"role": "assistant", "content": "first"}, {"role": "critic", "content": ""}]}

LLAMA3 = """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools_in_user_message is defined %}
    {%- set tools_in_user_message = true %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- The system message goes first, if there is one. #}
{%- if messages and messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first_user_message = messages[0]['content']|trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("Cannot put tools in the first user message when there's no first user message!") }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("one tool call at a time") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- tool_call.arguments | tojson }}
        {%- for arg_name, arg_val in tool_call.arguments | items %}
            {{- arg_name + '="' + arg_val + '"' }}
            {%- if not loop.last %}{{- ", " }}{%- endif %}
        {%- endfor %}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

QWEN = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}{{- messages[0]['content'] }}{%- else %}{{- 'You are helpful.' }}{%- endif %}
    {%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "<|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}{{- tool_call.name }}{{- '"}' }}
        {%- endfor %}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

QWEN3 = """{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or (not loop.last and reasoning)) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""

GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}"""

GEMMA3 = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}{{ '<start_of_image>' }}{%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\\n'}}
{%- endif -%}
"""

MISTRAL = """{%- if messages and messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}

{#- This block checks for alternating user/assistant messages. #}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, conversation roles must alternate user/assistant/user/assistant/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"] + eos_token}}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported!") }}
    {%- endif %}
{%- endfor %}
{{- user_messages | length }}
"""

LLAMA2 = "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"

PHI = "{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message and message['tools'] is not none %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + message['tools'] + '<|/tool|>' + '<|end|>' }}{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"

MACROS = """{%- macro turn(role, text, open='<|', close='|>') -%}
{{ open ~ role ~ close }}{{ text }}{{ open ~ 'end' ~ close }}
{%- endmacro -%}
{%- macro count(n) %}{% if n > 0 %}{{ n }}{{ count(n - 1) }}{% endif %}{% endmacro -%}
{%- for m in messages %}{{ turn(m.role, text=m.content) }}
{{ turn(m.role | upper, m.content | length, close=']]') }}
{% endfor %}
{{ count(5) }}{% generation %}gen{% endgeneration %}"""

# Small ones, each about one thing; rendered with "chat" only.
SNIPPETS = {
    "whitespace": "a\n  {% if true %}\n  b\n  {% endif %}\nc {% if true %} d {% endif %} e\n{#- c -#}\n f {#+ d #}\ng{{ 1 }}\nh\n\n",
    "whitespace_signs": "a  {%- if true -%}  b  {%+ if true %}\nc{% endif +%}\nd{% endif %}\n  {%+ if true %}e{% endif %}\n   {{- 'f' -}}   g\n",
    "whitespace_lines": "{% if true %}\n  x\n{% endif %}  \n   {# c #}  {# d #}\n\t{% if 1 %}\ty{% endif %}\n  z",
    "crlf": "a\r\n{% if true %}\r\nb\r\n{% endif %}\rc",
    "raw": "{% raw %}{{ x }} {% if %}{% endraw %} {%- raw -%}  {{ y }}  {%- endraw -%}  z {% raw %}\n a\n{% endraw %}\nb",
    "literals": "{{ 'a\\n\\t\\\\b' }}{{ \"q'\\\"\" }}{{ '\\x41\\u00e9\\U0001F600\\d' }}{{ 'a' 'b' }}{{ 1_000 }} {{ 1.50 }} {{ 1e3 }} {{ true }} {{ None }} {{ none }} {{ [1, 'a', [2.0, none]] }} {{ (1,) }} {{ () }} {{ {'a': 1, 'b': {'c': 'd\\'\"'}} }}",
    "numbers": "{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ -2 ** 2 }} {{ 2 ** -1 }} {{ 1 + 2 * 3 - 4 }} {{ 1.5 + 1 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 1e16 }} {{ 1e-5 }} {{ 0.1 + 0.2 }} {{ 100.0 }} {{ +3 }} {{ - 3 }} {{ true + 1 }} {{ 1e22 }} {{ 123456789.123 }}",
    "comparisons": "{{ 1 < 2 }} {{ 1 < 2 < 3 }} {{ 3 > 2 > 2 }} {{ 'a' < 'b' }} {{ 1 == 1.0 }} {{ 1 == true }} {{ 'a' == 'a' }} {{ [1, 2] == [1, 2] }} {{ {'a': 1} == {'a': 1} }} {{ none == false }} {{ 1 != 2 }} {{ 2 >= 2 }} {{ x == y }}",
    "logic": "{{ 1 and 2 }} {{ 0 and 2 }} {{ 0 or 'x' }} {{ not 0 }} {{ not 1 == 2 }} {{ 1 if 0 else 2 }} {{ 'y' if 1 }} {{ 'n' if 0 }}|{{ 1 or 2 and 0 }} {{ not true or true }} {{ 'a' in 'abc' }} {{ 'x' not in 'abc' }} {{ 2 in [1, 2] }} {{ 'k' in {'k': 1} }} {{ not 'a' in 'b' }}",
    "concat": "{{ 1 ~ 2 }} {{ 'a' ~ none ~ 1.0 ~ [1] ~ true }} {{ 'a' * 3 }} {{ [0] * 2 }} {{ [1] + [2] }} {{ 'a' ~ x ~ 'b' }}",
    "slices": "{{ 'héllo'[1] }}{{ 'héllo'[-1] }}{{ 'héllo'[1:3] }}{{ 'héllo'[::-1] }}{{ 'héllo'[::2] }}{{ 'héllo'[-3:] }}{{ 'héllo'[:-10] }}{{ 'héllo'[10:] }} {{ [1,2,3,4][1:] }} {{ [1,2,3,4][::-1] }} {{ [1,2,3,4][-2:] }} {{ [1,2,3,4][3:0:-2] }} {{ [1,2][5] is defined }} {{ messages[:1] | length }} {{ [1,2,3][-100:2] }} {{ (1,2,3)[1:] }}",
    "undefined": "{{ x }}|{{ x is defined }}|{{ messages[0].nothing is undefined }}|{{ messages[0]['nothing'] }}|{% for i in x %}a{% else %}none{% endfor %}|{{ x | default('d') }}|{{ x | length }}|{{ x | list }}|{{ '' | default('e') }}|{{ '' | default('e', true) }}|{{ none | default('f') }}|{{ not x }}|{{ x | join(',') }}|{{ x | trim }}|{{ x | upper }}",
    "loop": "{% for i in [10, 20, 30] %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.depth }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}",
    "loop_filter": "{% for i in range(10) if i % 3 == 0 %}{{ i }}:{{ loop.index }}/{{ loop.length }} {% else %}x{% endfor %}{% for i in [] %}a{% else %}empty{% endfor %}{% for i in range(5) if i > 9 %}a{% else %}none left{% endfor %}",
    "loop_jumps": "{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% for j in 'ab' %}{% if j == 'b' %}{% break %}{% endif %}{{ j }}{% endfor %}{% endfor %}",
    "loop_unpack": "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}{% for a, b in [[1, 2], (3, 4)] %}{{ a + b }},{% endfor %}{% for k in {'x': 1} %}{{ k }}{% endfor %}{% for c in 'aé😀' %}[{{ c }}]{% endfor %}",
    "scope": "{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = 2 %}{{ x }};{% endfor %}{{ x }}{% if true %}{% set x = 3 %}{% endif %}{{ x }}{% for x in [9] %}{{ x }}{% endfor %}{{ x }}",
    "namespace": "{% set ns = namespace(a=1, b='x') %}{% for i in [1, 2, 3] %}{% set ns.a = ns.a + i %}{% set ns.c = i %}{% endfor %}{{ ns.a }}{{ ns.b }}{{ ns.c }}{{ ns.nothing is defined }}",
    "set": "{% set a, b = 1, 'x' %}{{ a }}{{ b }}{% set c %}text {{ a }}{% endset %}[{{ c }}]{% set d | upper | trim %} up {% endset %}[{{ d }}]{% set e = (1, 2) %}{{ e[1] }}{% set f = [1, 2] if a else [] %}{{ f | length }}",
    "filter_block": "{% filter upper | trim %}  abc {{ 'x' }} {% endfilter %}!",
    "macro_scope": "{% set g = 'G' %}{% macro m(a, b=a, c=g) %}{{ a }}{{ b }}{{ c }}{% set g = 'inner' %}{{ g }}{% endmacro %}{{ m(1) }} {{ m(1, 2) }} {{ m(a=3, c=4) }} {{ g }}{% set g = 'H' %} {{ m('z') }}",
    "strings": "{{ '  a b '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ ' a '.lstrip() }}|{{ ' a '.rstrip() }}|{{ 'a,b,,c'.split(',') }}|{{ ' a  b c '.split() }}|{{ 'a,b,c'.split(',', 1) }}|{{ ' a b  c '.split(none, 1) }}|{{ 'a,b,c'.rsplit(',', 1) }}|{{ 'abc'.startswith('ab') }}|{{ 'abc'.endswith(('x', 'c')) }}|{{ 'aXb'.upper() }}|{{ 'aXb'.lower() }}|{{ 'a-b-c'.replace('-', '+') }}|{{ 'a-b-c'.replace('-', '+', 1) }}|{{ 'ab'.replace('', '.') }}|{{ \"they're bill's\".title() }}|{{ 'hELLO wORLD'.capitalize() }}|{{ 'abcabc'.find('c') }}|{{ 'abcabc'.count('bc') }}|{{ ', '.join(['a', 'b']) }}|{{ 'prefix'.removeprefix('pre') }}|{{ '12'.isdigit() }}|{{ 'Straße'.upper() }}|{{ 'ÀÉ'.lower() }}|{{ ' a b '.split(none, 7) }}|{{ ' a b c '.rsplit(none, 1) }}",
    "filters": "{{ ' a '|trim }}|{{ 'xax'|trim('x') }}|{{ 'ab'|upper }}|{{ 'AB'|lower }}|{{ 'heLLo woRLD'|capitalize }}|{{ \"hello there-they're (you)\"|title }}|{{ [1,2,3]|join('-') }}|{{ [1,2]|join }}|{{ 'a-b'|replace('-', '+') }}|{{ [1,2,3]|first }}{{ [1,2,3]|last }}|{{ 'ab'|list }}|{{ {'a': 1}|items|list }}|{{ 1.5|string }}|{{ '12'|int + 1 }}|{{ 'x'|int }}|{{ 'x'|int(7) }}|{{ '3.7'|int }}|{{ 2.9|int }}|{{ '1.5'|float }}|{{ 'é'|length }}|{{ {'a': 1}|length }}|{{ [3,1]|reverse|list }}|{{ 'abc'|reverse }}|{{ {'b': 1, 'a': 2}|dictsort }}|{{ -3|abs }}|{{ 'a\nb\n\nc'|indent }}|{{ 'a\nb'|indent(2, true) }}|{{ [[1, 2], [3]]|map('length')|list }}|{{ ['a', 'b']|map('upper')|join }}|{{ messages|map(attribute='role')|join(',') }}|{{ [0, 1, '', 'x']|select|list }}|{{ [1, 2, 3, 4]|select('even')|list }}|{{ [1, 2, 3]|reject('equalto', 2)|list }}|{{ '%'|safe }}|{{ messages|selectattr('role', 'equalto', 'user')|list|length }}|{{ messages|rejectattr('role', 'in', ['user', 'system'])|map(attribute='role')|first }}|{{ [{'a': {'b': 1}}, {'a': {'b': 2}}]|map(attribute='a.b')|list }}|{{ [{'a': 1}, {}]|map(attribute='a', default='-')|list }}|{{ messages|selectattr('nothing')|list|length }}",
    "tests": "{{ 1 is number }} {{ 'a' is string }} {{ [] is sequence }} {{ {} is mapping }} {{ none is none }} {{ true is boolean }} {{ true is true }} {{ 1 is true }} {{ false is false }} {{ 1 is integer }} {{ 1.0 is float }} {{ 4 is even }} {{ 4 is odd }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }} {{ 1 is in [1, 2] }} {{ 1 is not in [1, 2] }} {{ 'a' is eq 'a' }} {{ 'a' is ne('a') }} {{ [] is iterable }} {{ 1 is iterable }} {{ 'a' is mapping }} {{ {} is sequence }} {{ range is callable }} {{ 3 is gt 2 }} {{ 'abc' is lower }} {{ 'ABC' is upper }} {{ messages is defined and messages is not none }} {{ true is number }} {{ 1 is boolean }} {{ true is integer }}",
    "tojson": "{{ {'a': 1, 'b': [1.5, none, true, 'é\"\\\\\\n\\t<>&\\'\\x01'], 'c': {}, 'd': []}|tojson }}\n{{ {'a': 1, 'b': [1, {'c': 'd'}], 'e': {}}|tojson(indent=2) }}\n{{ messages|tojson }}\n{{ 'x'|tojson }}{{ 1|tojson }}{{ {1: 2, none: 3, true: 4}|tojson }}",
    "dict_methods": "{{ {'a': 1}.get('a') }} {{ {'a': 1}.get('b') }} {{ {'a': 1}.get('b', 2) }} {{ {'a': 1, 'b': 2}.keys()|list }} {{ {'a': 1}.values()|list }} {{ {'items': 5}['items'] }} {{ dict(a=1, b=2) }} {{ {'a': {'b': [7]}}.a.b[0] }} {{ messages[0].content.strip() }} {{ {'x': 1}.x }}",
    "functions": "{{ range(3)|list }} {{ range(1, 7, 2)|list }} {{ range(3, 0, -1)|list }} {{ strftime_now('%d %b %Y') }} {{ strftime_now('%Y-%m-%dT%H:%M') }}",
    "call_block": "{% macro box(t, n=1) %}<{{ t }}|{{ caller() }}|{{ caller() * n }}>{% endmacro %}{% call box('a') %}in{% set z = 1 %}{% endcall %}{% call box('b', n=2) %}{{ messages | length }}{% endcall %}{% macro each(l) %}{% for i in l %}{{ caller(i, b=i * 2) }}{% endfor %}{% endmacro %}{% call(a, b=0) each([1, 2]) %}[{{ a }}{{ b }}]{% endcall %}",
    "spread": "{% macro m(a, b=2, c=3) %}{{ a }}{{ b }}{{ c }};{% endmacro %}{{ m(*[1]) }}{{ m(*[1, 5], c=6) }}{{ m(**{'a': 7, 'c': 8}) }}{{ m(1, *(4,), **{'c': 9}) }}{{ range(*[1, 4]) | list }}{{ 'a-b'.replace(*['-', '+']) }}",
    "error_spread": "{% macro m(a) %}{% endmacro %}{{ m(**{'x': 1}) }}",
    "escape_marks": "{{ '{{' }} {{ '%}' }} {{ \"}}\" }} {{ {'a': {'b': 1}} }}",
    "nested": "{% for m in messages %}{% if m.role == 'user' %}{% for w in m.content.split() %}{% if loop.first %}<{% endif %}{{ w }}{% if not loop.last %} {% else %}>{% endif %}{% endfor %}{% elif m.role == 'system' %}S{% else %}?{% endif %}{% endfor %}",
    "elif": "{% for i in range(5) %}{% if i == 0 %}a{% elif i == 1 %}b{% elif i == 2 %}c{% else %}d{% endif %}{% endfor %}",
    "error_type": "{{ 1 + 'a' }}",
    "error_undefined": "{{ x.y }}",
    "error_undefined_call": "{{ nothing() }}",
    "error_none_add": "{{ 'a' + none }}",
    "error_iterate": "{% for i in 5 %}{% endfor %}",
    "error_raise": "{{ raise_exception('no ' ~ messages[0].role) }}",
    "error_range": "{{ range(10000000) | length }}",
    "error_zero": "{{ 1 / 0 }}",
}


def main():
    cases = []

    def add(name, template, messages, generation):
        case = {"name": name, "template": template, "messages": messages, "add_generation_prompt": generation}
        try:
            case["text"] = ENVIRONMENT.from_string(template).render(
                messages=messages, add_generation_prompt=generation, bos_token="<s>", eos_token="</s>", tools=None,
                documents=None)
        except Exception as e:  # the kind of error is ours to word
            case["error"] = str(e)
        cases.append(case)

    families = {"llama3": LLAMA3, "qwen": QWEN, "qwen3": QWEN3, "gemma": GEMMA, "gemma3": GEMMA3, "mistral": MISTRAL, "llama2": LLAMA2,
                "phi": PHI, "macros": MACROS}
    for family, template in families.items():
        for conversation, messages in CONVERSATIONS.items():
            for generation in (False, True):
                add(f"{family}/{conversation}/{generation}", template, messages, generation)
    for name, template in SNIPPETS.items():
        add(name, template, CHAT, True)
    path = Path(__file__).parent / "template_goldens.json"
    path.write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(len(cases), sum("error" in c for c in cases), path.stat().st_size)


if __name__ == "__main__":
    main()
