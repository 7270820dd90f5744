everyone; pid=$(pgrep -o -x adamant-agent) || skip 'no agent runs'
$poke sigio "$pid" 9 && gone "$pid"
