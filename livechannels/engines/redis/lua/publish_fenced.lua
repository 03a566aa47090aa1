-- Key 4: the lease. Arguments 13 and 14: session and token, compared for equality.
if not leads(KEYS[4], ARGV[13], ARGV[14]) then return 'FENCED' end
return store()
