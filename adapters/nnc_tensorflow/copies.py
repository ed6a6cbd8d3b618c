def copied(model, cut, plan):
    raise NotImplementedError
