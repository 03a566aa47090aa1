return store()
