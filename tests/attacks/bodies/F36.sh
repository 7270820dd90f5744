need taskset; everyone; undo 'taskset -p ff 1'; taskset -p 1 1
