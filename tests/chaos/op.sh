#!/bin/sh
# What every container of a chaos run does: op.sh KIND AMOUNT CODE.
# It says on the network when it starts and when it is about to end, and by its words, events and
# outputs it can be told which container of which attempt it was.
set -eu

kind=$1 amount=$2 code=$3
nonce=$(tr -d - < /proc/sys/kernel/random/uuid)

# Not before the recorder has the mark on its disk does the op go on.
mark() {
    until echo "$1 $GYOZA_RUN_ID $GYOZA_ATTEMPT $nonce" |
        nc -w 5 "$RECORDER_HOST" "$RECORDER_PORT" | grep -q taken; do
        sleep 0.2
    done
}

case $kind in stubborn) trap '' TERM ;; esac

mark start
echo "container $nonce of attempt $GYOZA_ATTEMPT"

case $kind in
    sleeping | stubborn)
        second=0
        while [ "$second" -lt "$amount" ]; do
            second=$((second + 1))
            sleep 1
            echo "second $second"
        done
        ;;
    chatty)
        # In ten parts. Standard error has letters that standard output has not, so that the two
        # can be told apart wherever one interrupts the other.
        part=0
        while [ "$part" -lt 10 ]; do
            seq $((part * amount + 1)) $(((part + 1) * amount)) | sed 's/^/line /'
            seq $((part * amount + 1)) $(((part + 1) * amount)) | tr '0-9\n' 'A-J;' >&2
            part=$((part + 1))
            echo "::gyoza::{\"type\": \"INFO\", \"msg\": \"part $part\"}"
            sleep 0.3
        done
        ;;
    failing) sleep "$amount" ;;
esac

items=0
case $kind in productive) items=$amount ;; esac
{
    printf '{"attempt": %s, "nonce": "%s", "items": [' "$GYOZA_ATTEMPT" "$nonce"
    seq -s , 1 "$items"
    printf '], "inputs": '
    cat "$GYOZA_INPUT_JSON_PATH"
    printf '}'
} > "$GYOZA_OUTPUT_PATH"

echo "end"
mark end
exit "$code"
