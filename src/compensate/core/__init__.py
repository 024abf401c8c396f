"""The pure core: names, dag, plan, events, transition tables, policies, log and machine. No I/O, no clock."""
