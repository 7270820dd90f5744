agent_process
$poke sigio "$pid" 9 && gone "$pid"
