#!/usr/bin/env bash
# Joins the shares that annotate.sbatch (or annotate.yaml) wrote and makes the data set of them: the same bytes as from one machine.
# In: VIDEOS, OUT and SHARES as there; further options go to `utr-train data`. Out: OUT/set with data.jsonl, its card and the audit pages.
set -euo pipefail
: "${VIDEOS:?the folder of videos}" "${OUT:?the folder that the shares were written to}" "${SHARES:?how many shares there are}"
for share in $(seq 0 $((SHARES - 1))); do
    if [ ! -f "$OUT/detections.$share.jsonl" ]; then
        echo "join: share $share of $SHARES is not finished: $OUT/detections.$share.jsonl is missing" >&2
        exit 1
    fi
done
if compgen -G "$OUT/detections.$SHARES.jsonl" > /dev/null; then
    echo "join: $OUT holds more than $SHARES shares: $OUT/detections.$SHARES.jsonl; SHARES must be their number" >&2
    exit 1
fi
rm -f "$OUT/joined.jsonl" "$OUT/joined.skipped.jsonl"
for share in $(seq 0 $((SHARES - 1))); do
    cat "$OUT/detections.$share.jsonl" >> "$OUT/joined.jsonl"
    if [ -f "$OUT/detections.$share.skipped.jsonl" ]; then
        cat "$OUT/detections.$share.skipped.jsonl" >> "$OUT/joined.skipped.jsonl"
    fi
done
exec utr-train data --videos "$VIDEOS" --detections "$OUT/joined.jsonl" --output "$OUT/set" --audit "${AUDIT:-50}" "$@"
