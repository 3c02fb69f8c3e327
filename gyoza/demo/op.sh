#!/bin/sh
# An op in plain shell: the words that a text has most often. Inputs: {"text": "..."}.
# It needs no library: the inputs are a JSON file, events are lines, the outputs a JSON file.
set -eu

event() { echo "::gyoza::{\"type\": \"$1\", \"msg\": $2}"; }

event PROGRESS 10
sed -e 's/^{"text": "//' -e 's/\\u....\|\\./ /g' "$GYOZA_INPUT_JSON_PATH" |
    tr A-Z a-z | tr -cs a-z '\n' | sed '/^$/d' > /tmp/words
event INFO "\"$(wc -l < /tmp/words | tr -d ' ') words\""
event PROGRESS 60
sort /tmp/words | uniq -c | sort -k1,1rn -k2,2 | head -n 3 |
    awk '{ printf "%s\"%s\": %d", (NR == 1 ? "{" : ", "), $2, $1 } END { print "}" }' \
        > "$GYOZA_OUTPUT_PATH"
event PROGRESS 100
