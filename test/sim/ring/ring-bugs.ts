/** Bugs of replication made on purpose, in the form of ../deliberate-bugs.ts; the simulated ring must catch each. */
import type { DeliberateBug } from '../deliberate-bugs.ts'

const coordinator = 'src/replication/quorum-coordinator.ts'
const exchanges = 'src/replication/exchanges.ts'
const hintStore = 'src/replication/hint-store.ts'
const localReplica = 'src/replication/local-replica.ts'
const quorumList = 'src/replication/quorum-list.ts'
const quorumRead = 'src/replication/quorum-read.ts'
const shard = 'src/shard/shard.ts'
const versionSet = 'src/versions/version-set.ts'

const ringTest = (name: string) => ({ file: 'test/sim/ring/ring-sim.test.ts', name: `RingSim: ${name}` })
const fallbacks = ringTest(
  'what fallbacks acknowledged is there although each node was stopped in turn and a replica lost its disk',
)
const hintStoreTest = (name: string) => ({ file: 'test/replication/hint-store.test.ts', name: `HintStore: ${name}` })
const mergeCommand = (name: string) => ({ file: 'test/shard/merge-command.test.ts', name: `Shard: ${name}` })
const regression = (name: string) => ({ file: 'test/sim/ring/regressions.test.ts', name: `Regression: ${name}` })
const topologyRegression = (name: string) => ({
  file: 'test/sim/ring/regressions-topology.test.ts',
  name: `Regression: ${name}`,
})
const topologyCase = (name: string) => ({
  file: 'test/sim/ring/topology-cases.test.ts',
  name: `Topology cases: ${name}`,
})
const exchangesTest = (name: string) => ({ file: 'test/replication/exchanges.test.ts', name: `Exchanges: ${name}` })
const ledgerTest = (name: string) => ({
  file: 'test/replication/repair-ledger.test.ts',
  name: `RepairLedger: ${name}`,
})
const hintRecord = (name: string) => ({ file: 'test/shard/hint-record.test.ts', name: `Shard: ${name}` })
const allFaults = ringTest(
  'under all faults nothing acknowledged is lost, nothing deleted comes back, no quorum read is stale',
)
const damageTest = (name: string) => ({
  file: 'test/sim/ring/regressions-damage.test.ts',
  name: `Regression: ${name}`,
})
const damageFound = damageTest(
  'damage while it runs. A replica finds it, answers nothing alone, and takes back what the others have; nothing is deleted on its word',
)
const damageAlone = damageTest(
  'damage that is not yet repaired. A replica that cannot reach the others answers none of what it has alone',
)
const damageRestarted = damageTest(
  'damage that is not yet repaired, and one more start. It still answers nothing alone, and is not taken for whole',
)
const damageBeforeTree = damageTest(
  'damage in the middle, between its clock and its tree. What it took is not deleted by others',
)
const damageBeforeJoin = damageTest(
  'damage in the middle, between the comparison and the clock that it joins. What it took is not deleted by others',
)
const damageWhileMended = (met: string) =>
  damageTest(
    `damage while it is mended. What is damaged once more before the clean tables are written, and met ${met}, is not left out of them`,
  )
const listsTest = (name: string) => ({ file: 'test/sim/ring/list-sim.test.ts', name: `Lists: ${name}` })
const lists = listsTest('under all faults each key that was acknowledged is listed once, and none that was deleted')
const listsOfOthers = listsTest(
  'where each replica lacks other keys and other deletes, any two of them give each key once, in order, and nothing that was deleted',
)
const scenario = (file: string) => ({
  file: 'test/scenarios/scenarios.test.ts',
  name: `Scenario ${file}: goes as its transcript says`,
})

const chainTest = (name: string) => ({ file: 'test/cluster/topology/chain.test.ts', name: `Chain: ${name}` })

export const ringBugs: readonly DeliberateBug[] = [
  {
    what: 'votes on the next members though it has lost what it voted',
    patches: [
      {
        file: 'src/cluster/topology/chain.ts',
        from: "if (!this.#isNamed(topology)) return answer({ type: 'barred', ballot: request.ballot })",
        to: "if (voteless(request)) return answer({ type: 'barred', ballot: request.ballot })",
      },
      {
        file: 'src/cluster/topology/chain.ts',
        from: 'function epochOf(',
        to: 'const voteless = (request: ChainRequest): boolean => request.ballot.counter < 0\n\nfunction epochOf(',
      },
    ],
    test: chainTest('a voter that lost its disk does not vote under its old name; another epoch names it, and it does'),
  },
  {
    what: 'takes an earlier copy of its votes for all that it voted',
    patches: [
      {
        file: 'src/cluster/topology/chain.ts',
        from: 'return acceptor.place === place ? acceptor.id : undefined',
        to: 'return place.length >= 0 ? acceptor.id : undefined',
      },
    ],
    test: chainTest('a voter that was put back from an earlier copy does not vote under its old name'),
  },
  {
    what: 'names its ballots by its node, so that after the loss of its disk one ballot stands for two proposals',
    patches: [
      {
        file: 'src/cluster/topology/chain.ts',
        from: '      acceptor: this.#acceptor,\n',
        to: '      acceptor: options.nodeId,\n',
      },
    ],
    test: chainTest('who lost its disk uses none of its ballots again'),
  },
  {
    what: 'begins the operations of a batch on one key beside each other',
    patches: [
      {
        file: 'src/replication/batch.ts',
        from: '      if (before === undefined) this.#ready.push(index)',
        to: '      if (before === undefined || index > 0) this.#ready.push(index)',
      },
    ],
    test: {
      file: 'test/replication/batch.test.ts',
      name: 'runBatch() applies operations on one key in request order, whatever the order of answers',
    },
  },
  {
    what: 'forgets with a restart up to where it gave times to writes',
    patches: [{ file: 'src/storage/store.ts', from: 'this.#timestamps.begin(this.#timestampsReserved)', to: '' }],
    test: regression(
      'clock set back. The last write wins over an older one that comes late, though the delete between them is forgotten',
    ),
  },
  {
    what: 'gives a write the time of the clock, whatever times were given before',
    patches: [
      {
        file: 'src/versions/timestamp-clock.ts',
        from: 'Math.max(now, this.#mark, wanted, latest + 1)',
        to: 'Math.max(now, wanted, latest + 1)',
      },
    ],
    test: regression(
      'clock set back. The last write wins over an older one that comes late, though the delete between them is forgotten',
    ),
  },
  {
    what: 'acknowledges writes with times whose reservation a power cut may take',
    patches: [
      {
        file: 'src/storage/store.ts',
        from: '      this.#timestampsOrdered = this.#timestampsReserved\n      this.#syncThrough = this.#staged\n',
        to: '      this.#timestampsOrdered = this.#timestampsReserved\n',
      },
    ],
    test: {
      file: 'test/shard/shard-last-write.test.ts',
      name: 'Shard: no time is given twice over a restart with the clock set back, whatever became of the key and of unsynced writes',
    },
  },
  {
    what: 'follows the time of a peer however far it is ahead',
    patches: [
      {
        file: 'src/versions/timestamp-clock.ts',
        from: ' || timestamp > Math.max(Math.floor(nowMs), this.#hostMs) + this.#aheadMsMax) return',
        to: ' || nowMs < 0) return',
      },
    ],
    test: {
      file: 'test/versions/timestamp-clock.test.ts',
      name: 'TimestampClock: times of others count as far as clocks may be apart, and no wild one drags it',
    },
  },
  {
    what: 'takes times from a clock that its peers find far off',
    patches: [
      {
        file: coordinator,
        from: "if ((expires || bucket.conflict === 'lww') && this.#options.isClockAstray())",
        to: 'if (expires && Number.isNaN(ttlMs) && this.#options.isClockAstray())',
      },
    ],
    test: {
      file: 'test/sim/ring/coordinator-sim.test.ts',
      name: 'Coordinator: a node whose clock is far from its peers refuses writes that compare times, takes the others, and recovers',
    },
  },
  {
    what: 'answers a write when one replica has it',
    patches: [{ file: coordinator, from: 'return count >= acksNeeded(level, group.length)', to: 'return count >= 1' }],
    test: allFaults,
  },
  {
    what: 'answers a read whose replies differ without bringing those behind up to date',
    patches: [
      {
        file: quorumRead,
        from: '    const stale = [...replies].filter(([, reply]) => !sameDigest(reply.digest, target)).map(([node]) => node)',
        to: '    const stale: string[] = []; void target',
      },
    ],
    test: allFaults,
  },
  {
    what: 'answers a read with one reply although they differ',
    patches: [
      {
        file: quorumRead,
        from: 'if (whole !== undefined && [...replies.values()].every((reply) => sameDigest(reply.digest, whole.digest))) {',
        to: 'if (whole !== undefined) {',
      },
    ],
    test: allFaults,
  },
  {
    what: 'counts a failed answer of a replica as one that has the write',
    patches: [
      {
        file: coordinator,
        from: '    if (message.failure !== undefined) {\n      if (hintFor === undefined) this.#miss',
        to: '    if (message.failure !== undefined && message.requestId < 0) {\n      if (hintFor === undefined) this.#miss',
      },
    ],
    test: scenario('refused.txt'),
  },
  {
    what: 'says of a write that one replica has that it did nothing',
    patches: [
      {
        file: coordinator,
        from: "done?.(quorumNotMet(needed, acks.size, new Set(groups.flat()).size, 'partial'), undefined)",
        to: "done?.(quorumNotMet(needed, acks.size, new Set(groups.flat()).size, 'none'), undefined)",
      },
    ],
    test: allFaults,
  },
  {
    what: 'says of a write that it sent on and that was not answered that it did nothing',
    patches: [
      { file: coordinator, from: "operation.isWrite ? 'unknown' : 'none'", to: "operation.isWrite ? 'none' : 'none'" },
    ],
    test: allFaults,
  },
  {
    what: 'says of a local write that was not answered that it did nothing',
    patches: [{ file: localReplica, from: "return isRead(request) ? 'none' : 'unknown'", to: "return 'none'" }],
    test: allFaults,
  },
  {
    what: 'puts what another replica has in the place of what is there',
    patches: [
      {
        file: shard,
        from: '    const local = this.#setAt(old)\n    let next =',
        to: '    const local = this.#setAt(old)\n    let next = old !== 0 ? incoming :',
      },
    ],
    test: allFaults,
  },
  {
    what: 'replaces with a context what the context does not cover',
    patches: [
      { file: versionSet, from: '  const replaced = context ?? set.vector', to: '  const replaced = set.vector' },
    ],
    test: allFaults,
  },
  {
    what: 'forgets the vector of the losing side of a merge',
    patches: [
      {
        file: versionSet,
        from: '  const vector = joinVectors(a.vector, b.vector)\n  return isUnchanged',
        to: '  const vector = a.vector.length > 0 ? joinVectors(a.vector, versions.map(({ actor, counter }) => ({ actor, counter })).filter((entry, index, all) => all[index + 1]?.actor !== entry.actor)) : b.vector\n  return isUnchanged',
      },
    ],
    test: {
      file: 'test/versions/causal-histories.test.ts',
      name: 'Causal histories: version sets show exactly the maximal writes seen, and converge',
    },
  },
  {
    what: 'issues dots of the same actor again after a power cut took unsynced writes, and does not heed what it hears of its own',
    patches: [
      {
        file: 'test/sim/ring/sim-node.ts',
        from: '    if (this.#mayMissWrites) {\n      this.#actor = this.#newActor()',
        to: '    if (this.#mayMissWrites) {',
      },
      {
        file: shard,
        from: 'if (counterOf(incoming.vector, this.store.actor) >= this.store.nextCounter(partition)) {',
        to: 'if (counterOf(incoming.vector, this.store.actor) < 0) {',
      },
    ],
    test: ringTest('a node that lost unsynced writes names no two writes alike'),
  },
  {
    what: 'drops hints of replicas that missed a write',
    patches: [
      {
        file: coordinator,
        from: 'if (!stoodIn.has(node)) this.#options.hints.missed',
        to: 'if (node === undefined) this.#options.hints.missed',
      },
    ],
    test: scenario('refused.txt'),
  },
  {
    what: 'removes a hint when it is sent, not when it is taken',
    patches: [
      {
        file: hintStore,
        from: '        if (!this.#options.send(to, bytes)) fail()',
        to: '        if (!this.#options.send(to, bytes)) return fail(); this.#flights.delete(requestId); this.#drop(hint, () => {})',
      },
    ],
    test: ringTest('hints reach their targets although messages are lost'),
  },
  {
    what: 'coordinates a request twice that the network repeats',
    patches: [{ file: coordinator, from: 'if (this.#forwarded.has(name)) return true', to: '' }],
    test: ringTest('a write that was sent on to its coordinator, and comes there twice, is one write'),
  },
  {
    what: 'counts requests from the start in every run, and takes answers to the run before for its own',
    patches: [
      {
        file: coordinator,
        from: 'this.#lastRequestId = options.random.u32() & requestIdMask',
        to: 'this.#lastRequestId = 0',
      },
    ],
    test: ringTest('an answer to a process that ended is not taken for one to the process after it'),
  },
  {
    what: 'joins the clock of a peer without having brought the keys together',
    patches: [
      {
        file: exchanges,
        from: 'const difference = exchange.keysLeft.pop()',
        to: 'const difference = exchange.keysLeft.splice(0)[1e9]',
      },
    ],
    test: allFaults,
  },
  {
    what: 'joins the clock of a peer although some keys could not be brought together',
    patches: [
      {
        file: exchanges,
        from: '    if (exchange.isPartial) return this.#end(exchange)\n    // Not where something was lost',
        to: '    // Not where something was lost',
      },
    ],
    test: ringTest(
      'an exchange that could not bring a key together joins no clock, and the key is not taken for deleted',
    ),
  },
  {
    what: 'leaves in the tree what a write replaced',
    patches: [{ file: 'src/storage/store.ts', from: '      if (isNew) this.#noteGone(old)\n', to: '' }],
    test: {
      file: 'test/shard/merge-command.test.ts',
      name: 'Shard: the tree of a partition is the sum of what is there, however it came to be',
    },
  },
  {
    what: 'acknowledges the hint of a fallback before it is written',
    patches: [
      {
        file: hintStore,
        from: '    const { turn } = hint\n    hint.isKeeping = true',
        to: '    const { turn } = hint\n    hint.isKeeping = true\n    done(undefined, durability === "sync"); done = () => {}',
      },
    ],
    test: hintStoreTest('a fallback acknowledges as durably as asked, and what it has outlives a power cut'),
  },
  {
    what: 'keeps hints in memory alone',
    patches: [
      {
        file: localReplica,
        from: '    const key = encodeHintKey(hint)\n    const slot = slotOfKey(hint.key, 0, hint.key.length)\n    const shard = this.#shardOf(slot)\n    const target = this.#begin(shard, mergeCommandSize',
        to: '    if (hint.target !== "") return done(undefined, { isDurable: true })\n    const key = encodeHintKey(hint)\n    const slot = slotOfKey(hint.key, 0, hint.key.length)\n    const shard = this.#shardOf(slot)\n    const target = this.#begin(shard, mergeCommandSize',
      },
    ],
    test: fallbacks,
  },
  {
    what: 'does not read hints back after a restart',
    patches: [{ file: hintStore, from: '    this.#loader.tick(nowMs)\n', to: '' }],
    test: fallbacks,
  },
  {
    what: 'replaces the versions that a hint holds by those that come later',
    patches: [
      {
        file: shard,
        from: 'const value = held === undefined ? incoming : mergeHintValues(held, incoming)',
        to: 'const value = held === undefined ? incoming : incoming.length > 0 ? incoming : mergeHintValues(held, incoming)',
      },
    ],
    test: hintStoreTest('what comes before hints were read back is merged with what lies in the shard'),
  },
  {
    what: 'removes a hint although something came for it while it was under way',
    patches: [
      {
        file: hintStore,
        from: 'const isGone = error === undefined && hint.turn === turn',
        to: 'const isGone = error === undefined',
      },
      {
        file: hintStore,
        from: '    else if (hint.turn !== turn) this.#wait(hint, nowMs)\n    else {',
        to: '    else {',
      },
    ],
    test: hintStoreTest('what comes while a hint is under way is not removed with it'),
  },
  {
    what: 'gives a hint a dot of its partition',
    patches: [
      {
        file: shard,
        from: '      noCounter,\n',
        to: '      (() => { const of = this.#options.partitionOfSlot(u8[start + 2]! | (u8[start + 3]! << 8)); const next = this.store.nextCounter(of) + noCounter; this.store.useCounter(of, next); return next })(),\n',
      },
    ],
    test: hintRecord('a hint takes no dot of its partition, and neither clock nor counter hears of it'),
  },
  {
    what: 'gives a hint a dot, and tells the clock of its partition',
    patches: [
      {
        file: shard,
        from: 'const noCounter = 0\n',
        to: 'const noCounter = 7\n',
      },
      {
        file: 'src/storage/partition-clocks.ts',
        from: 'if (clock === undefined || recordBucket(i32, at) === hintBucketId) return',
        to: 'if (clock === undefined) return',
      },
    ],
    test: hintRecord('a hint takes no dot of its partition, and neither clock nor counter hears of it'),
  },
  {
    what: 'keeps what is left of hints that were removed, as of versions that other replicas may have',
    patches: [
      {
        file: 'src/storage/partition-trees.ts',
        from: '  if (recordBucket(i32, at) === hintBucketId) return isDeleted\n',
        to: '',
      },
    ],
    test: hintRecord('hints that come and go leave nothing behind in memory and log'),
  },
  {
    what: 'takes hints of a partition of which it has lost all, before it knows what was deleted',
    patches: [
      {
        file: 'src/replication/replica.ts',
        from: 'if (isHandedOver && this.#options.mayLackClock(partition)) return',
        to: 'if (isHandedOver && this.#options.mayLackClock(-1)) return',
      },
    ],
    test: regression(
      'a hint that is late for years, to a replica that lost its disk, does not bring back what was deleted',
    ),
  },
  {
    what: 'compares what is marked only when its turn comes',
    patches: [
      {
        file: exchanges,
        from: 'for (let left = ledger.markCount; left > 0; left--) {',
        to: 'for (let left = 0; left > 0; left--) {',
      },
    ],
    test: exchangesTest(
      'a marked pair comes first, again and again until it succeeds, and the others have their turns meanwhile',
    ),
  },
  {
    what: 'lets what is wanted and marked keep the rest from its turn',
    patches: [
      {
        file: exchanges,
        from: 'if (isInTurn && this.#turns % turnsApart === 0 && this.#beginInTurn()) return',
        to: 'void turnsApart',
      },
    ],
    test: exchangesTest(
      'those that a move waits for and those that are marked come by turns, and neither keeps the rest from its own',
    ),
  },
  {
    what: 'forgets a delete that one replica has not got yet',
    patches: [
      {
        file: 'src/versions/stability.ts',
        from: 'reduce((least, bases) => Math.min(least, counterOf(bases, actor)), counter)',
        to: 'reduce((least, bases) => Math.max(least, counterOf(bases, actor)), counter)',
      },
    ],
    test: regression('gc grace. Deletes hold although a replica was away for longer than anybody would wait'),
  },
  {
    what: 'takes for stable what it is told last',
    patches: [
      {
        file: 'src/storage/partition-trees.ts',
        from: 'const joined = joinStable(before, stable)',
        to: 'const joined = stable; void joinStable',
      },
    ],
    test: mergeCommand('what is stable never goes back, whatever it is told'),
  },
  {
    what: 'attests what a power cut may take',
    patches: [
      {
        file: 'src/shard/partition-compare.ts',
        from: 'this.#store.isDurable && this.#store.damaged',
        to: 'this.#store.damaged',
      },
    ],
    test: mergeCommand('it attests what is on stable storage alone'),
  },
  {
    what: 'turns what has expired into tombstones although replicas compare it',
    patches: [
      {
        file: 'src/storage/store.ts',
        from: '(!isCompared && this.#mayExpire(address, epochMs))',
        to: '(isCompared || this.#mayExpire(address, epochMs)) && this.#mayExpire(address, epochMs)',
      },
    ],
    test: regression(
      'expiry. What expires at different times on replicas that compare does not come back, and is no cause to repair',
    ),
  },
  {
    what: 'keeps what is deleted for ever once the other replicas have left',
    patches: [
      {
        file: 'src/replication/partition-keeper.ts',
        from: 'alone.push(partition)',
        to: 'if (partition < 0) alone.push(partition)',
      },
    ],
    test: regression(
      'a replica whose others have left forgets what is deleted and what expires, as one that never had any',
    ),
  },
  {
    what: 'forgets what has expired on the fastest clock',
    patches: [
      {
        file: 'src/versions/stability.ts',
        from: 'Math.min(...replicas.map(({ nowMs }) => nowMs))',
        to: 'Math.max(...replicas.map(({ nowMs }) => nowMs))',
      },
    ],
    test: {
      file: 'test/versions/stability.test.ts',
      name: 'stableOf() is the least base of each actor, and an actor that one replica does not know is not in it',
    },
  },
  {
    what: 'drops a hint that finds no room, and tells nobody',
    patches: [{ file: hintStore, from: '      this.#options.ledger.mark(partition, target)\n', to: '' }],
    test: hintStoreTest("beyond its bytes a replica's hint is dropped and counted, a fallback's refused"),
  },
  {
    what: 'drops a hint of a fallback that grew too old although nobody else has what it tells',
    patches: [
      {
        file: hintStore,
        from: '    if (bucket === undefined || hint.setBytes === 0) return',
        to: '    if (bucket === undefined || hint.setBytes >= 0) return',
      },
      {
        file: hintStore,
        from: '    if (bucket !== undefined && to === undefined && hint.setBytes > 0) return\n',
        to: '',
      },
    ],
    test: hintStoreTest('what only a fallback has does not grow too old before some owner took it'),
  },
  {
    what: 'hands a target that is just back all that it missed at once',
    patches: [
      {
        file: hintStore,
        from: '      if (queue.busy >= queue.credit || ++visits',
        to: '      if (queue.busy >= inFlightMax || ++visits',
      },
    ],
    test: hintStoreTest('a target that refuses or is silent is asked again, and hints go on meanwhile'),
  },
  {
    what: 'shows a peer as equal although it missed a write since',
    patches: [
      {
        file: 'src/replication/repair-ledger.ts',
        from: '    this.#entryOf(nameOf(partition, peer)).missed = ++this.#number\n',
        to: '',
      },
    ],
    test: ledgerTest('a write that a peer missed ends being equal, until an exchange that began after it'),
  },
  {
    what: 'takes back a mark when an exchange ends that began before it',
    patches: [{ file: 'src/replication/repair-ledger.ts', from: '    if (entry.marked >= number) return\n', to: '' }],
    test: ledgerTest('a mark survives exchanges that fail or began before it, and comes first in turn'),
  },
  {
    what: 'spends more on repair than its budget',
    patches: [
      {
        file: 'src/replication/repair-budget.ts',
        from: 'if (this.waiting === 0 && this.#tokens > 0) {',
        to: 'if (bytes > 0) {',
      },
    ],
    test: {
      file: 'test/replication/repair-budget.test.ts',
      name: 'RepairBudget: who asks for room waits, and all kinds together get no more than the rate',
    },
  },
  {
    what: 'lets those who came first have all of the budget of repair',
    patches: [
      {
        file: 'src/replication/repair-budget.ts',
        from: 'if (next === undefined || this.#shares[kind] < this.#shares[next]) next = kind',
        to: "if (next === undefined || kind === 'moves') next = kind",
      },
    ],
    test: {
      file: 'test/replication/repair-budget.test.ts',
      name: 'RepairBudget: kinds that wait get equal shares, whatever the size of their pieces and the order in which they came',
    },
  },
  {
    what: 'counts in a receipt who took a write under an epoch before and owns the key no more',
    patches: [
      {
        file: coordinator,
        from: '.filter(({ node, isFallback }) => isFallback || owners.has(node))',
        to: '',
      },
    ],
    test: scenario('fence-write.txt'),
  },
  {
    what: 'does not heed that it hears of writes of its own actor that it never made',
    patches: [
      {
        file: shard,
        from: 'if (counterOf(incoming.vector, this.store.actor) >= this.store.nextCounter(partition)) {',
        to: 'if (counterOf(incoming.vector, this.store.actor) < 0) {',
      },
    ],
    test: topologyRegression(
      'kv679 uid. A node whose files were rolled back under its actor takes another when it meets what it wrote, and names no two writes alike',
    ),
  },
  {
    what: 'reads from newcomers that have compared what they have with one old replica alone',
    patches: [
      {
        file: 'src/cluster/topology/move-driver.ts',
        from: 'needed: majorityOf(old) - own }',
        to: 'needed: 1 - own }',
      },
    ],
    test: topologyRegression(
      'range movement. Three nodes join at once while one of the old owners lacks what the others took: nothing is lost, and all is served meanwhile',
    ),
  },
  {
    what: 'serves whoever goes by an epoch before, however far that is',
    patches: [
      {
        file: 'src/replication/topology-routing.ts',
        from: "return fenceOf(standingOf(this.topology, partition), request) === 'accepted'",
        to: "return request.epoch > 0 || fenceOf(standingOf(this.topology, partition), request) === 'accepted'",
      },
    ],
    test: topologyRegression(
      'cached ownership. A coordinator that hears of no epoch for a minute is refused by those that do, and right when it has heard',
    ),
  },
  {
    what: 'gives a read up that a replica of another epoch refuses',
    patches: [{ file: quorumRead, from: 'if (passesSoon(failure)) {', to: 'if (needed < 0 && passesSoon(failure)) {' }],
    test: topologyRegression(
      'cached ownership. A coordinator that hears of no epoch for a minute is refused by those that do, and right when it has heard',
    ),
  },
  {
    what: 'decides an epoch with less than a majority of the voters',
    patches: [
      {
        file: 'src/cluster/paxos.ts',
        from: 'return Math.floor(voters / 2) + 1',
        to: 'return Math.ceil(voters / 2) - 1 || 1',
      },
    ],
    test: topologyRegression(
      'reconfiguration in a partition. In every shape of a partition one chain of epochs goes on, and what was acknowledged stays',
    ),
  },
  {
    what: 'removes a member that is down though only that one may have some writes',
    patches: [
      {
        file: 'src/cluster/topology/transitions.ts',
        from: 'if (isDown && topology.partitions.some(',
        to: 'if (isDown && topology.epoch === 0 && topology.partitions.some(',
      },
    ],
    test: topologyRegression(
      'reconfiguration in a partition. Where a majority of the voters is gone nothing is decided until an operator forces it',
    ),
  },
  {
    what: 'lets the last write win in every bucket when replicas meet',
    patches: [
      {
        file: shard,
        from: 'if (u8[start + 1]! & CommandFlag.lastWriteWins) next = resolveLastWriteWins(next, this.#actorTable)',
        to: 'next = resolveLastWriteWins(next, this.#actorTable)',
      },
    ],
    test: topologyRegression(
      'split brain with both sides writing. After a partition into halves whatever either side acknowledged is there, as siblings',
    ),
  },
  {
    what: 'takes a datagram whose checksum does not hold',
    patches: [
      {
        file: 'src/host/peer/datagram.ts',
        from: "  if (crc32(bytes.subarray(0, bytes.length - 4)) !== readU32(bytes, bytes.length - 4)) return 'checksum'\n",
        to: '',
      },
    ],
    test: topologyRegression(
      'gossip with a flipped bit. Every bit of what nodes say to each other is flipped once, and nothing of it is taken',
    ),
  },
  {
    what: 'asks for the ring with every message that tells of a later epoch',
    patches: [
      {
        file: 'src/cluster/topology/chain.ts',
        from: ' || this.#nowMs < this.#nextQuestionMs)\n',
        to: ')\n',
      },
    ],
    test: topologyRegression(
      'all fetch the ring at once. When what kept hundreds of epochs from many nodes ends, all have the last one within 10 s, for few questions and bytes',
    ),
  },
  {
    what: 'proposes what it wants itself though something else may be decided already',
    patches: [
      {
        file: 'src/cluster/paxos.ts',
        from: 'return highest === undefined ? this.#own : highest.value',
        to: 'return highest === undefined || highest.value !== undefined ? this.#own : highest.value',
      },
    ],
    test: topologyRegression(
      'reads of what is being decided. A change that some have accepted is shown by nobody until it is decided, and then by all, for good',
    ),
  },
  {
    what: 'waits for ever for a newcomer that died',
    patches: [
      {
        file: 'src/cluster/topology/move-driver.ts',
        from: 'if (nowMs - this.#silentSinceMs >= this.#parameters.abortAfterMs) this.#change(',
        to: 'if (nowMs - this.#silentSinceMs >= 1e12) this.#change(',
      },
    ],
    test: topologyCase(
      'a move to a node that died is taken back after a minute, by itself, and goes through when the node is back',
    ),
  },
  {
    what: 'removes a member by force, and leaves moves under way where they are',
    patches: [
      {
        file: 'src/cluster/topology/transitions.ts',
        from: 'const back = rolledBack(partition, epoch)',
        to: 'const back = partition; void rolledBack',
      },
    ],
    test: topologyCase('a dead node is removed by force while others move, and what a quorum had is all there'),
  },
  {
    what: 'keeps for itself what it has of partitions that it lost while it was away',
    patches: [
      {
        file: 'src/replication/partition-keeper.ts',
        from: "this.#leftOver.set(partition, was.stage === 'cleanUp' ? was.since : topology.epoch)",
        to: 'void was',
      },
      {
        file: 'src/replication/partition-keeper.ts',
        from: 'if (!isHeld) this.#leftOver.set(partition, epoch)',
        to: 'void isHeld; void epoch',
      },
    ],
    test: topologyCase(
      'a node that was away for a hundred epochs, its own leaving among them, hears of all, and hands over what only it had',
    ),
  },
  {
    what: 'refuses whoever is one stage of a move behind',
    patches: [
      {
        file: 'src/cluster/topology/replica-sets.ts',
        from: "if (request.epoch < replica.fence) return 'requestBehind'",
        to: "if (request.epoch < replica.epoch) return 'requestBehind'",
      },
    ],
    test: topologyCase('a coordinator that is one stage behind is served, and what it writes is there after the move'),
  },
  {
    what: 'says of a change that another one beat that it was made',
    patches: [
      {
        file: 'src/cluster/topology/proposals.ts',
        from: "if (topology.changes.includes(pending.change)) return this.#settle(pending, { type: 'decided', topology })",
        to: "return this.#settle(pending, { type: 'decided', topology })",
      },
    ],
    test: topologyRegression(
      'split brain without a fault. Of many who want the same at once one gets it, all others are told that they do not, and a change that is given up is told truly',
    ),
  },
  {
    what: 'convicts others of what came late while it was stopped itself',
    patches: [
      {
        file: 'src/cluster/membership/membership.ts',
        from: '    if (passedMs > this.#parameters.pauseMs) this.#wasPaused(passedMs, nowMs)\n',
        to: '',
      },
    ],
    test: topologyRegression(
      'slow member. One that stalls for 5 s again and again makes nobody take others for down, and all goes on',
    ),
  },
  {
    what: 'leaves the hint of a replica that is known to be down only behind the write',
    patches: [{ file: coordinator, from: '    if (!sloppy) this.#hintBefore(bucket, key, groups)\n', to: '' }],
    test: ringTest(
      'a node that knows of a replica that is down leaves its hint before the write, and no kill parts the two',
    ),
  },
  {
    what: 'lets a page of a list reach up to the end of the replica that told most',
    patches: [
      { file: quorumList, from: 'compare(end, reach) < 0)) reach = end', to: 'compare(end, reach) > 0)) reach = end' },
    ],
    test: listsOfOthers,
  },
  {
    what: 'takes the key behind which a list goes on into the partitions behind',
    patches: [{ file: quorumList, from: 'after: index === 0 ? after : undefined,', to: 'after,' }],
    test: listsOfOthers,
  },
  {
    what: 'goes on in the next partition where a page ended within one',
    patches: [
      {
        file: quorumList,
        from: '      list.after = key\n      return false',
        to: '      list.partition++\n      return false',
      },
    ],
    test: lists,
  },
  {
    what: 'tells other replicas no dead keys in a list',
    patches: [{ file: shard, from: 'withDead: forReplica', to: 'withDead: forReplica && limit === 0' }],
    test: listsOfOthers,
  },
  {
    what: 'lists what one replica has although more were asked for',
    patches: [
      { file: quorumList, from: 'if (read.pages.size < read.needed) return', to: 'if (read.pages.size < 1) return' },
    ],
    test: lists,
  },
  {
    what: 'lists what the replicas have that answer, however few',
    patches: [
      {
        file: quorumList,
        from: 'if (reachable.length < read.needed) return this.#fail(list, notMet(read, reachable.length))',
        to: 'read.needed = Math.min(read.needed, reachable.length)',
      },
    ],
    test: listsTest('too few replicas fail a page with the partition that lacks them; fewer are asked for on request'),
  },
  {
    what: 'answers a list of a partition that lies elsewhere by now',
    patches: [
      {
        file: 'src/replication/replica.ts',
        from: 'if (!routing.accepts(message, partition) || !routing.holds(partition)) return fail(wrongEpoch())',
        to: 'if (partition < 0) return fail(wrongEpoch())',
      },
    ],
    test: listsTest(
      'a replica that disagrees on who holds a partition refuses, and is asked again; what makes no sense is not believed',
    ),
  },
  {
    what: 'keeps the clock of a partition that lost data to damage',
    patches: [
      { file: 'src/storage/store.ts', from: '    this.#clocks.reset(partition)\n', to: '' },
      { file: 'src/storage/store.ts', from: '    this.wantsActor = true\n', to: '' },
    ],
    test: damageFound,
  },
  {
    what: 'lets a replica that lost data to damage attest what it has',
    patches: [
      {
        file: 'src/shard/partition-compare.ts',
        from: 'this.#store.isDurable && this.#store.damaged.generationOf(partition) === 0',
        to: 'this.#store.isDurable',
      },
    ],
    test: damageAlone,
  },
  {
    what: 'takes a damaged replica for whole after an exchange with one of two others',
    patches: [
      {
        file: 'src/replication/exchanges.ts',
        from: '!others.every((other) => resync.peers.has(other))',
        to: '!others.some((other) => resync.peers.has(other))',
      },
    ],
    test: damageAlone,
  },
  {
    what: 'answers reads of a partition that lost data to damage',
    patches: [
      {
        file: 'src/replication/local-replica.ts',
        from: 'if (!isForRepair && this.isResyncing(partitionOfSlot(slot)))',
        to: 'if (!isForRepair && slot < 0)',
      },
    ],
    test: damageAlone,
  },
  {
    what: 'answers with a clock from before damage and a tree from behind it',
    patches: [
      {
        file: 'src/replication/replica.ts',
        from: 'done(undefined, (life + new ByteReader(bytes).u32()) >>> 0)',
        to: 'done(undefined, life)',
      },
    ],
    test: damageBeforeTree,
  },
  {
    what: 'joins a clock although data was lost to damage since the comparison',
    patches: [
      {
        file: 'src/shard/partition-compare.ts',
        from: 'if (generation !== this.#store.damaged.generationOf(partition)) {',
        to: 'if (generation < 0) {',
      },
    ],
    test: damageBeforeJoin,
  },
  {
    what: 'counts a late answer of a replica that is behind as one of what was merged',
    patches: [
      {
        file: quorumRead,
        from: '    if (read.merged !== undefined) return\n    if (reply instanceof SunwiseError) {',
        to: '    if (reply instanceof SunwiseError) {',
      },
    ],
    test: {
      file: 'test/replication/quorum-coordinator.test.ts',
      name: 'QuorumCoordinator: who answers a read after it was merged, and is behind, does not count as one that has it',
    },
  },
  {
    what: 'passes over damage that came after the clock was filled again',
    patches: [
      {
        file: 'src/storage/damaged-partitions.ts',
        from: 'if (damaged?.isLearning === true) {',
        to: 'if (damaged !== undefined) {',
      },
    ],
    test: damageWhileMended('by reads'),
  },
  {
    what: 'writes a damaged partition anew, and forgets the damage, before the others have brought what was lost',
    patches: [
      {
        file: 'src/storage/damaged-partitions.ts',
        from: 'damaged === undefined || damaged.isResyncing || damaged.isLearning ? undefined',
        to: 'damaged === undefined || damaged.isLearning ? undefined',
      },
    ],
    test: damageRestarted,
  },
  {
    what: 'leaves out of clean tables what is damaged and was not known to be',
    patches: [
      {
        file: 'src/storage/compaction.ts',
        from: 'givenUp === undefined ? {} : { givenUp }',
        to: '{ damaged: () => {} }',
      },
    ],
    test: damageWhileMended('by the merge'),
  },
]
