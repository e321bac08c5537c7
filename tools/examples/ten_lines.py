import sys
from dataclasses import replace

import numpy as np

from twin.client import control

with control(sys.argv[1], "one-user", "bs0.plan", observe=("proposal",)) as site:
    for moment in site:
        plan, served = moment.proposal.plan, np.zeros_like(moment.proposal.plan.served)
        if moment.user.size:  # thirty subframes for one user alone, then the next
            who = moment.k // 30 % moment.user.size
            served[:, who] = plan.served.any(axis=1)
            plan = replace(plan, served=served, slot=np.where(served[:, who], plan.user_slot[who], -1))
        site.act(plan=plan)
