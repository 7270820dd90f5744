then=$(date +%s); undo 'date -s @$then >/dev/null'; date -s @4102444800 >/dev/null; [ "$(date +%s)" -gt 4102000000 ]
