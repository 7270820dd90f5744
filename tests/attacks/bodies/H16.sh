then=$(date +%s); undo 'date -s @$then >/dev/null'; date -s "@$((then - 31536000 * 30))" >/dev/null; [ "$(date +%s)" -lt $((then - 1000000)) ]
