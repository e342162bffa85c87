/**
 * Bugs made on purpose, each with the test that must catch it. A test that none of them fails proves nothing, and a guarantee
 * whose bug no test catches is a hope. Patches are exact texts of the present source: whoever changes a line that one of them
 * names moves the bug along, or finds another place for it.
 *
 * Readers broken on purpose are hunted in test/storage/resident-reader-threads.test.ts, merges in
 * test/versions/causal-histories.test.ts.
 */

export type Patch = { readonly file: string; readonly from: string; readonly to: string }

export type DeliberateBug = {
  /** What the program does wrong. */
  readonly what: string
  readonly patches: readonly Patch[]
  /** The test that must fail: file and name. */
  readonly test: { readonly file: string; readonly name: string }
}

const store = 'src/storage/store.ts'
const clocks = 'src/storage/partition-clocks.ts'
const commitLog = 'src/storage/commit-log.ts'
const recovery = 'src/storage/log-recovery.ts'
const recycler = 'src/storage/recycler.ts'

const modelTest = (name: string) => ({ file: 'test/storage/shard-model.test.ts', name: `Shard and store: ${name}` })
const faultTest = (name: string) => ({ file: 'test/storage/store-faults.test.ts', name: `Store: ${name}` })
const retirement = (which: string) => ({
  file: 'test/storage/store-retirement.test.ts',
  name: `Store: a segment ${which} is retired after what is newer is on stable storage`,
})
const clientTest = (name: string) => ({ file: 'test/client/connect.test.ts', name })
const synced = modelTest('synced writes equal the model through stops, kills and power cuts')
const anyDurability = modelTest('writes of all durabilities lose no more than they may')
const coldKeys = {
  file: 'test/shard/cold-keys.test.ts',
  name: 'Shard: commands on a cold key stay in their order, while those on other keys overtake them',
}
const beyondMemory = modelTest('data beyond memory, synced, equals the model')
const beyondMemoryOfAll = modelTest('data beyond memory, of all durabilities, loses no more than it may')
const tableFaults = (name: string) => ({ file: 'test/storage/table-faults.test.ts', name: `Tables: ${name}` })
const syncedLater = modelTest('syncs that end later change nothing')
const chainTest = (name: string) => ({ file: 'test/cluster/topology/chain.test.ts', name: `Chain: ${name}` })
const chainLives = chainTest(
  'whatever is lost, late, doubled, cut off and crashes, epochs are agreed on and changes made once',
)
const chainCrashes = chainTest('1, 2, 3, 2, 1 members, with a crash at every message and every save')
const topology = 'src/cluster/topology'
const ioError = faultTest('an i/o error of any call loses nothing that was promised (sync)')
const diskFull = faultTest('a disk that stays full serves reads, and takes writes when there is room again (sync)')

const heldShards = {
  file: 'test/storage/hold.test.ts',
  name: 'Store.hold(): what is copied while 1 shards go on recovers as they were (immediate disk)',
}

export const deliberateBugs: readonly DeliberateBug[] = [
  {
    what: 'builds a partition anew without telling readers that its structure changed',
    patches: [
      {
        file: 'src/storage/hash-index.ts',
        from: '    Atomics.store(this.#partitions, header + 1, fresh)\n    Atomics.add(this.#partitions, header, 1)\n',
        to: '    Atomics.store(this.#partitions, header + 1, fresh)\n',
      },
    ],
    test: {
      file: 'test/storage/resident-reader-threads.test.ts',
      name: 'ResidentReader finds what is there while partitions are built anew, however long it stays between two looks',
    },
  },
  {
    what: 'keeps the reserve of the disk where it is needed',
    patches: [
      {
        file: 'src/storage/disk-keeper.ts',
        from: '    this.#options.disk.remove(reservePath, (error) => {\n      if (error === undefined) this.#space.gaveUp()',
        to: "    this.#options.disk.remove('nothing', (error) => {\n      if (error === undefined) this.#space.gaveUp()",
      },
    ],
    test: {
      file: 'test/storage/disk-full-recovery.test.ts',
      name: '2 shards fill a disk of 4096 KiB with a reserve of 128: growth is refused, deletes go on, merges make room, writes are taken again',
    },
  },
  {
    what: 'acknowledges a write before the log has it',
    patches: [
      {
        file: store,
        from: '        log.write()\n        this.#noteWritten()\n',
        to: '        this.#publish(this.#staged)\n        log.write()\n        this.#noteWritten()\n',
      },
    ],
    test: diskFull,
  },
  {
    what: 'acknowledges a synced write before its sync',
    patches: [{ file: store, from: '    if (sync) this.#syncThrough = this.#staged\n', to: '' }],
    test: synced,
  },
  {
    what: 'publishes with a sync what was written after it began',
    patches: [
      {
        file: store,
        from: '    const through = this.#written\n    let finished = false\n',
        to: '    let through = 0\n    let finished = false\n',
      },
      {
        file: store,
        from: '      const isLate = finished\n',
        to: '      const isLate = finished\n      through = this.#written\n',
      },
    ],
    test: syncedLater,
  },
  {
    what: 'names two writes alike',
    patches: [
      {
        file: clocks,
        from: '    this.#counters[partition] = counter\n  }\n\n  /** The clock of',
        to: '  }\n\n  /** The clock of',
      },
    ],
    test: synced,
  },
  {
    what: 'counts the dots of its actor from 0 after a start',
    patches: [{ file: clocks, from: 'counters.get(actor) ?? 0\n', to: '0\n' }],
    test: synced,
  },
  {
    what: 'does not look at the writes of its own group when it applies one',
    patches: [
      {
        file: store,
        from: 'for (let ordinal = this.#stagedHeads[hash & (stagedBuckets - 1)]!; ordinal >= this.#published; )',
        to: 'for (let ordinal = -1; ordinal >= this.#published; )',
      },
    ],
    test: {
      file: 'test/index.test.ts',
      name: 'Store.batch() answers each operation in order, and operations on one key apply in order',
    },
  },
  {
    what: 'does not look at the checksum of a group',
    patches: [
      {
        file: 'src/storage/log-group.ts',
        from: '  return i32[word + 1]! >>> 0 === crc32(u8, start + 8, start + groupBytes)\n}\n\nexport function groupSequence',
        to: '  return crc32 !== undefined\n}\n\nexport function groupSequence',
      },
    ],
    test: { file: 'test/storage/log-group.test.ts', name: 'LogGroup: every flipped bit is seen' },
  },
  {
    what: 'reads on behind a torn group at the end of the log',
    patches: [
      {
        file: recovery,
        from: '    if (!isBefore(position, this.#synced)) {\n      this.#droppedBytes',
        to: '    if (!isBefore(position, this.#synced) && this.#nextGroup(loaded, position.bytes + 4, loaded.sequence) < 0) {\n      this.#droppedBytes',
      },
      {
        file: recovery,
        from: '    if (!this.#options.salvage) throw this.#corrupt(loaded.path, position.bytes)\n',
        to: '',
      },
    ],
    test: {
      file: 'test/storage/log-recovery.test.ts',
      name: 'Log recovery: sectors that are zeroed, exchanged or smashed are found or end the log, and never make a record',
    },
  },
  {
    what: 'takes damage of what was synced for a torn tail',
    patches: [
      {
        file: recovery,
        from: '    if (!isBefore(position, this.#synced)) {\n      this.#droppedBytes',
        to: '    if (position.bytes >= 0) {\n      this.#droppedBytes',
      },
    ],
    test: {
      file: 'test/storage/log-recovery.test.ts',
      name: 'Log recovery: salvage keeps every record but those of the damaged group, and names the damage',
    },
  },
  {
    what: 'takes an error of fsync for a success',
    patches: [
      {
        file: commitLog,
        from: '        if (error !== undefined) failed = this.#fail(error)\n        if (--left > 0) return\n',
        to: '        if (--left > 0) return\n',
      },
    ],
    test: ioError,
  },
  {
    what: 'tries a failed fsync again on a new descriptor',
    patches: [
      {
        file: commitLog,
        from: '      segment.file!.sync((error) => {\n        if (error !== undefined) failed',
        to: '      syncTwice(this.#options.disk, segment, (error) => {\n        if (error !== undefined) failed',
      },
      {
        file: commitLog,
        from: 'export class CommitLog {\n',
        to:
          'function syncTwice(disk: Disk, segment: LiveSegment, done: (error: SunwiseError | undefined) => void): void {\n' +
          '  segment.file!.sync((error) => {\n' +
          '    if (error === undefined) return done(undefined)\n' +
          '    segment.file = disk.openNow(segment.file!.path)\n' +
          '    segment.file.sync(done)\n' +
          '  })\n' +
          '}\n\n' +
          'export class CommitLog {\n',
      },
    ],
    test: ioError,
  },
  {
    what: 'says of a write whose sync failed that it changed nothing',
    patches: [
      { file: store, from: "{ outcome: 'unknown', cause: error.cause", to: "{ outcome: 'none', cause: error.cause" },
    ],
    test: ioError,
  },
  {
    what: 'retires a segment whose records are copied, but not on stable storage',
    patches: [
      {
        file: recycler,
        from: '    if (synced >= this.#retireAfter) this.#retire()\n',
        to: '    if (synced >= -1) this.#retire()\n',
      },
    ],
    test: retirement('with a record that is still live'),
  },
  {
    what: 'retires a segment whose records were overwritten, but not on stable storage',
    patches: [
      {
        file: recycler,
        from: '    if (synced >= this.#retireAfter) this.#retire()\n',
        to: '    if (Math.max(synced, this.#store.published) >= this.#retireAfter) this.#retire()\n',
      },
    ],
    test: retirement('all of whose records were overwritten'),
  },
  {
    what: 'takes a mark under the torn first group of the next segment for damage',
    patches: [
      {
        file: recovery,
        from: 'endsInMark(i32, start) ? Number.POSITIVE_INFINITY : groupSequence(i32, start)',
        to: 'groupSequence(i32, start)',
      },
    ],
    test: {
      file: 'test/storage/store-retirement.test.ts',
      name: 'Store: a log opens wherever a power cut tears the first groups of a segment in a retired file',
    },
  },
  {
    what: 'forgets where a clean stop ended the log',
    patches: [
      {
        file: recovery,
        from: '    if (options.syncedEnd !== undefined) this.#synced = options.syncedEnd\n',
        to: '',
      },
    ],
    test: {
      file: 'test/host/clean-stop.test.ts',
      name: 'A log whose newest segment is gone is refused after a clean stop; salvage keeps the rest',
    },
  },
  {
    what: 'drops tombstones while an older segment still has what they deleted',
    patches: [
      { file: commitLog, from: '    const first = this.#live[0]\n', to: '    const first = this.#live[1]\n' },
      { file: commitLog, from: '    const live = this.#live[0]!\n', to: '    const live = this.#live[1]!\n' },
      { file: commitLog, from: '        this.#live.shift()\n', to: '        this.#live.splice(1, 1)\n' },
    ],
    test: synced,
  },
  {
    what: 'starts without syncing what it read from the log',
    patches: [
      {
        file: recovery,
        from: '    for (const loaded of files) loaded.file.sync(finish)\n',
        to: '    for (const _ of files) finish(undefined)\n',
      },
    ],
    test: anyDurability,
  },
  {
    what: 'keeps its actor after unsynced writes may have been lost',
    patches: [
      {
        file: 'src/host/node-host.ts',
        from: '  if (isSame && !record.isUnsynced && !salvage) return { ...present }\n',
        to: '  if (isSame && !salvage) return { ...present }\n',
      },
    ],
    test: {
      file: 'test/process/incarnation.test.ts',
      name: 'Node: after a life of os, then kill, its actor is new',
    },
  },
  {
    what: 'leaves the end of a ring without padding',
    patches: [
      {
        file: 'src/base/ring-producer.ts',
        from: '    if (paddingBytes > 0) this.#writeFrameHeader(this.#write, FrameKind.padding, paddingBytes - frameHeaderBytes)\n',
        to: '',
      },
    ],
    test: {
      file: 'test/base/ring-buffer.test.ts',
      name: 'A ring behaves as a queue for any run of reservations, publications, drains, throws and sleeps',
    },
  },
  {
    what: 'calls a shard up whose thread is gone',
    patches: [
      {
        file: 'src/host/thread-links.ts',
        from: 'return this.#peers[threadOfShard(shard)] !== undefined && this.#isShardUp(shard)',
        to: 'return this.#isShardUp(shard)',
      },
    ],
    test: {
      file: 'test/host/thread-links-door.test.ts',
      name: 'ThreadLinks: a shard that is down takes nothing, and its successor nothing that was meant for it',
    },
  },
  {
    what: 'writes whatever If-Match says',
    patches: [
      {
        file: 'src/shard/shard.ts',
        from: '    if ((flags & CommandFlag.ifMatch) === 0) return true\n',
        to: '    if (flags >= 0) return true\n',
      },
    ],
    test: synced,
  },
  {
    what: 'replaces what a context has not seen',
    patches: [
      {
        file: 'src/shard/shard.ts',
        from: '    let next = update(set, context, version)\n',
        to: '    let next = update(set, context === undefined ? undefined : set.vector, version)\n',
      },
    ],
    test: synced,
  },
  {
    what: 'believes a context that it did not give out for the key',
    patches: [
      {
        file: 'src/versions/context.ts',
        from: "  if (((u32At(bytes, macAt) ^ siphash.low) | (u32At(bytes, macAt + 4) ^ siphash.high)) !== 0) return 'code'\n",
        to: '',
      },
    ],
    test: {
      file: 'test/versions/context.test.ts',
      name: 'decodeContext() refuses the token of another key, bucket, partition or cluster',
    },
  },
  {
    what: 'does not look at the checksum of a row of the catalog',
    patches: [
      {
        file: 'src/host/catalog.ts',
        from: ' || row.readUInt32LE(0) !== checksumOf(key, value)) {',
        to: ') {',
      },
    ],
    test: {
      file: 'test/host/catalog.test.ts',
      name: 'HostCatalog: a row whose bytes changed is CATALOG_CORRUPT, never a wrong value',
    },
  },
  {
    what: 'merges what tables hold outside of their runs',
    patches: [
      {
        file: 'src/storage/compaction.ts',
        from: 'const range = { firstPartition, endPartition, portionBytes, pace }',
        to: 'const range = { firstPartition: 0 * firstPartition, endPartition: 1024 + 0 * endPartition, portionBytes, pace }',
      },
    ],
    test: beyondMemory,
  },
  {
    what: 'shows the oldest record of a key after a merge',
    patches: [
      {
        file: 'src/storage/merge.ts',
        from: 'this.#age.get(a)! < this.#age.get(b)!',
        to: 'this.#age.get(a)! > this.#age.get(b)!',
      },
    ],
    test: { file: 'test/storage/merge.test.ts', name: 'Merge: gives for each key what whole version sets give' },
  },
  {
    what: 'drops tombstones in merges that leave older runs alone',
    patches: [
      {
        file: 'src/storage/tables.ts',
        from: 'dropsTombstones: compaction.isLast,',
        to: 'dropsTombstones: true,',
      },
    ],
    test: beyondMemory,
  },
  {
    what: 'drops tombstones when it flushes',
    patches: [
      {
        file: 'src/storage/tables.ts',
        from: 'dropsTombstones: this.#rows.rows.length === 0,',
        to: 'dropsTombstones: true,',
      },
    ],
    test: beyondMemory,
  },
  {
    what: 'recycles tombstones away whose keys tables hold',
    patches: [
      {
        file: store,
        from: '(isDead && !this.mayBeInTables(partition, bucketId, u8, keyStart, keyBytes))',
        to: 'isDead',
      },
    ],
    test: beyondMemory,
  },
  {
    what: 'flushes without what took the place of dead records being synced',
    patches: [
      {
        file: 'src/storage/flusher.ts',
        from: 'if (isBefore(log.syncedEnd, this.#syncTarget) && log.hasUnsynced) {',
        to: 'if (isBefore(log.syncedEnd, this.#syncTarget) && log.hasUnsynced && log.failure !== undefined) {',
      },
    ],
    test: beyondMemoryOfAll,
  },
  {
    what: 'takes a key that memory does not have for deleted',
    patches: [
      {
        file: 'src/shard/shard.ts',
        from: '(old === 0 ? !this.store.mayBeInTables(partition, bucketId, u8, keyStart, keyBytes) : this.#isTombstone(old))',
        to: '(old === 0 || this.#isTombstone(old))',
      },
    ],
    test: beyondMemory,
  },
  {
    what: 'judges preconditions and contexts by memory alone',
    patches: [
      {
        file: 'src/shard/shard.ts',
        from: 'if (old === 0 && flags !== 0 && this.store.tables !== undefined) {',
        to: 'if (old === 0 && flags !== 0 && this.store.tables !== undefined && keyBytes === 0) {',
      },
    ],
    test: beyondMemory,
  },
  {
    what: 'commits a table that is not on stable storage',
    patches: [{ file: 'src/storage/sstable-writer.ts', from: '    file.syncNow()\n', to: '' }],
    test: beyondMemory,
  },
  {
    what: 'commits a table whose name is not on stable storage',
    patches: [
      {
        file: 'src/storage/flush.ts',
        from: '    disk.syncDirectoryNow(input.directory)\n    return { table',
        to: '    return { table',
      },
    ],
    test: beyondMemory,
  },
  {
    what: 'keeps index entries of segments that it gives away',
    patches: [
      {
        file: 'src/storage/hash-index.ts',
        from: '        this.#remove(partition, view[word - 7]!, view, word)\n',
        to: '',
      },
    ],
    test: beyondMemory,
  },
  {
    what: 'closes tables that other threads still read',
    patches: [
      {
        file: 'src/storage/table-view.ts',
        from: '(oldest !== 0 && ((oldest - version) | 0) < 0)) return true',
        to: '(oldest !== 0 && ((oldest - version) | 0) < -1000000)) return true',
      },
    ],
    test: {
      file: 'test/storage/table-view.test.ts',
      name: 'TableFinder on other threads finds every key while tables come and go, and handles are used again',
    },
  },
  {
    what: 'copies a record out of a cache into no room',
    patches: [
      {
        file: 'src/storage/table-finder.ts',
        from: '    this.#room(bytes)\n    copyWords(cache.i32',
        to: '    copyWords(cache.i32',
      },
    ],
    test: {
      file: 'test/storage/table-view.test.ts',
      name: 'TableFinder: one that has read nothing yet shows what another has put into the caches, whole',
    },
  },
  {
    what: 'believes what it read of a cached piece that was displaced meanwhile',
    patches: [
      {
        file: 'src/storage/frame-cache.ts',
        from: 'return Atomics.add(this.#sets, this.#stampWord, 0) === this.#stamp',
        to: 'return this.#stamp !== 0',
      },
    ],
    test: {
      file: 'test/storage/frame-cache.test.ts',
      name: 'FrameCache under several threads never shows a torn piece, nor one under another name',
    },
  },
  {
    what: 'lets a write overtake a read of the same key that waits for the disk',
    patches: [
      {
        file: 'src/shard/shard.ts',
        from: 'if (cold !== undefined && cold !== this.#resuming) {',
        to: 'if (cold !== undefined && cold !== this.#resuming && u8[start] === FrameKind.get) {',
      },
    ],
    test: coldKeys,
  },
  {
    what: 'lets a flush that is due stop a recycling pass that it waits for itself',
    patches: [
      {
        file: 'src/storage/store.ts',
        from: '        if (!this.#flusher.isResting || this.#flusher.isDue) return\n      }\n',
        to: '      }\n      if (!this.#flusher.isResting || this.#flusher.isDue) return\n',
      },
    ],
    test: coldKeys,
  },
  {
    what: 'refuses a log that was retired to its end',
    patches: [
      {
        file: 'src/storage/log-recovery.ts',
        from: '      this.#isRetired(this.#synced.sequence) ||\n',
        to: '',
      },
    ],
    test: {
      file: 'test/storage/store-retirement.test.ts',
      name: 'Store: where a clean stop ended the log may have been retired since, but not have gone away',
    },
  },
  {
    what: 'misses what a file held before the segment that took it was torn',
    patches: [
      {
        file: 'src/storage/log-recovery.ts',
        from: '      if (this.#isTaken(loaded)) continue\n',
        to: '',
      },
    ],
    test: {
      file: 'test/storage/log-recovery.test.ts',
      name: 'Log recovery: where all was retired and the first group of the next segment is torn, what its file held before is not missed',
    },
  },
  {
    what: 'retires a segment before the catalog has its table',
    patches: [
      {
        file: 'src/storage/flusher.ts',
        from: "    this.#phase = 'committing'\n",
        to: "    this.#phase = 'committing'\n    log.retireOldest(() => {})\n",
      },
    ],
    test: tableFaults('the end of the process at any commit of the catalog loses nothing'),
  },
  {
    what: 'shows tables to readers before the catalog has them',
    patches: [
      {
        file: 'src/storage/tables.ts',
        from: '    this.#options.commit(edits, unnamed, (error, orphans) => {\n',
        to: '    this.#rows = after\n    this.#publish()\n    this.#options.commit(edits, unnamed, (error, orphans) => {\n',
      },
    ],
    test: tableFaults('ENOSPC of any commit of the catalog loses nothing'),
  },
  {
    what: 'removes the files of a commit that failed, though the catalog may name them',
    patches: [
      {
        file: 'src/storage/tables.ts',
        from: '        takeBack()\n        return done(error)\n',
        to: '        takeBack()\n        for (const { tableId } of added) this.#remove(this.#pathOf(tableId))\n        return done(error)\n',
      },
    ],
    test: tableFaults('EIO of any commit of the catalog loses nothing'),
  },
  {
    what: 'leaves the files of flushes and compactions that were cut short',
    patches: [
      {
        file: 'src/storage/table-catalog.ts',
        from: "name.endsWith('.sst') && !named.has(name)",
        to: "name.endsWith('.gone') && !named.has(name)",
      },
    ],
    test: tableFaults('the end of the process at any call of the disk loses nothing'),
  },
  {
    what: 'leaves the oldest run out of a compaction',
    patches: [
      {
        file: 'src/storage/compaction.ts',
        from: 'const inputs = input.runs.map(',
        to: 'const inputs = input.runs.slice(0, Math.max(1, input.runs.length - 1)).map(',
      },
    ],
    test: beyondMemory,
  },
  {
    what: 'lets values expire early in merges',
    patches: [
      {
        file: 'src/storage/merge.ts',
        from: 'const after = expire(set, nowMs, graceMs)',
        to: 'const after = expire(set, nowMs + 50_000, 0 * graceMs)',
      },
      {
        file: 'src/storage/merge.ts',
        from: 'return simpleExpiry(u8, i32, at) + this.#options.graceMs <= this.#options.nowMs',
        to: 'return simpleExpiry(u8, i32, at) <= this.#options.nowMs + 50_000',
      },
    ],
    test: beyondMemory,
  },
  {
    what: 'says that one segment more than the table holds was flushed',
    patches: [
      {
        file: 'src/storage/tables.ts',
        from: '[flushedEdit(this.#options.shard, through)], finish)',
        to: '[flushedEdit(this.#options.shard, through + 1)], finish)',
      },
    ],
    test: tableFaults('the end of the process at any commit of the catalog loses nothing'),
  },
  {
    what: 'leaves some keys out of the filters of tables',
    patches: [
      {
        file: 'src/storage/sstable-writer.ts',
        from: '      addToFilter(words, filter,',
        to: '      if (key % 64 !== 5) addToFilter(words, filter,',
      },
    ],
    test: beyondMemory,
  },
  {
    what: 'removes tables that a backup copies',
    patches: [{ file: 'src/storage/tables.ts', from: 'if (this.#isHeld) {', to: 'if (this.#isHeld && path === "") {' }],
    test: heldShards,
  },
  {
    what: 'uses segments again that a backup copies',
    patches: [
      {
        file: 'src/storage/commit-log.ts',
        from: 'if (this.#isHeld) {',
        to: 'if (this.#isHeld && this.#retiring !== true) {',
      },
    ],
    test: heldShards,
  },
  {
    what: 'answers a vote before it is durable',
    patches: [
      {
        file: `${topology}/chain-voter.ts`,
        from: '      answer(reply)\n    })',
        to: '    })\n    answer(reply)',
      },
    ],
    test: chainLives,
  },
  {
    what: 'answers a vote that is asked for again while it is being stored',
    patches: [
      {
        file: `${topology}/chain-voter.ts`,
        from: "if (reply.type === 'refused' || state === this.#durable)",
        to: "if (reply.type === 'refused' || state === this.#state)",
      },
    ],
    test: chainLives,
  },
  {
    what: 'forgets its vote in a restart',
    patches: [
      {
        file: `${topology}/chain.ts`,
        from: 'topology.epoch + 1, remembered === undefined ? undefined : vote)',
        to: 'topology.epoch + 1, undefined)',
      },
    ],
    test: chainCrashes,
  },
  {
    what: 'has an epoch decided by the voters that it names itself',
    patches: [
      {
        file: `${topology}/proposals.ts`,
        from: 'new Proposer(this.#options.acceptor, before.voters,',
        to: 'new Proposer(this.#options.acceptor, decodeTopology(value)!.voters,',
      },
      {
        file: `${topology}/proposals.ts`,
        from: 'this.#options.ask(epoch, before.voters, request)',
        to: 'this.#options.ask(epoch, decodeTopology(value)!.voters, request)',
      },
      {
        file: `${topology}/chain.ts`,
        from: ' || !topology.voters.includes(nodeId)) return',
        to: ') return',
      },
    ],
    test: chainCrashes,
  },
  {
    what: 'uses a ballot again after a restart',
    patches: [
      {
        file: `${topology}/chain.ts`,
        from: "counter: stored.ballot === undefined ? 0 : rowOf('ballot', decodeCounter(stored.ballot)),",
        to: 'counter: 0,',
      },
    ],
    test: chainLives,
  },
  {
    what: 'makes a change again that is in the chain already',
    patches: [
      {
        file: `${topology}/proposals.ts`,
        from: 'if (topology.changes.includes(pending.change)) return',
        to: 'if (topology.epoch < 0) return',
      },
    ],
    test: chainLives,
  },
  {
    what: 'goes by an epoch before it is stored',
    patches: [
      {
        file: `${topology}/chain.ts`,
        from: '    this.#options.store.save({ topology: bytes }, (error) => {\n',
        to: '    this.#become(topology, bytes)\n    this.#options.store.save({ topology: bytes }, (error) => {\n',
      },
    ],
    test: chainLives,
  },
  {
    what: 'skips a stage of a move',
    patches: [
      {
        file: `${topology}/moves.ts`,
        from: 'stages[stages.indexOf(stage) + 1]!',
        to: "stages[stages.indexOf(stage) + (stage === 'streaming' ? 2 : 1)]!",
      },
    ],
    test: chainCrashes,
  },
  {
    what: 'goes on from whatever stage a move is at',
    patches: [{ file: `${topology}/moves.ts`, from: ' || stage !== step.from)', to: ')' }],
    test: {
      file: 'test/cluster/topology/transitions.test.ts',
      name: 'Topology: a step names the batch and the stage it goes on from, so that none is skipped',
    },
  },
  {
    what: 'counts acknowledgements in the old replicas alone while a partition moves',
    patches: [
      {
        file: `${topology}/replica-sets.ts`,
        from: 'isSameSet(old, added) ? [old] : [old, added]',
        to: 'isSameSet(old, added) ? [added] : [old]',
      },
    ],
    test: {
      file: 'test/cluster/topology/replica-sets.test.ts',
      name: 'Fences: whoever gets along, what one reads the other writes, W and R being majorities',
    },
  },
  {
    what: 'takes requests of whoever is two stages of a move behind',
    patches: [
      {
        file: `${topology}/moves.ts`,
        from: 'since: epoch, fence: partition.since',
        to: 'since: epoch, fence: partition.fence',
      },
    ],
    test: {
      file: 'test/cluster/topology/replica-sets.test.ts',
      name: 'Fences: the stages of one move get along with their neighbours, and with no others',
    },
  },
  {
    what: 'begins a merge again and again whose result is too large for a table',
    patches: [
      {
        file: 'src/storage/tables.ts',
        from: 'this.#overLimit.push({ merge: compaction, againAtMs: monotonicMs + overLimitRestMs })',
        to: 'void compaction',
      },
    ],
    test: {
      file: 'test/storage/table-limit.test.ts',
      name: 'Tables: a merge whose result is too large for a table is said once, and left until a day later; newer runs are merged',
    },
  },
  {
    what: 'gives the buffer of a block back while a command still needs it',
    patches: [
      {
        file: 'src/shard/shard.ts',
        from: 'if (this.#mustLoadMore) this.#load(cold)',
        to: 'if (this.#mustLoadMore) this.store.tables!.takeBack(cold.given), this.#load(cold)',
      },
    ],
    test: {
      file: 'test/shard/cold-keys.test.ts',
      name: 'Shard: what was read of a table is kept for as long as a command needs it, and its buffer is used again',
    },
  },
  {
    what: 'keeps the buffers of blocks that nobody looks at any more',
    patches: [{ file: 'src/shard/shard.ts', from: 'this.store.tables!.takeBack(cold.given)', to: 'void cold.given' }],
    test: {
      file: 'test/shard/cold-keys.test.ts',
      name: 'Shard: what was read of a table is kept for as long as a command needs it, and its buffer is used again',
    },
  },
  {
    what: 'repeats a write of a client whose outcome is unknown',
    patches: [
      {
        file: 'src/client/http-sender.ts',
        from: "const mayRepeat = call.isRead || call.isRepeatable === true || error.outcome === 'none'",
        to: 'const mayRepeat = true',
      },
    ],
    test: clientTest('Client never repeats a write whose outcome is unknown'),
  },
  {
    what: 'tells a client that nothing was written where its connection broke behind a write',
    patches: [
      {
        file: 'src/client/endpoint.ts',
        from: "call.isRead || !isConnected ? 'none' : 'unknown'",
        to: "'none'",
      },
    ],
    test: clientTest('Client.update() does not merge twice what may have been written'),
  },
  {
    what: 'calls a repeated write unwritten because its precondition fails the second time',
    patches: [
      {
        file: 'src/client/http-sender.ts',
        from: "throw isUnsure && error.outcome === 'none' ? unsure(error) : error",
        to: 'throw error',
      },
    ],
    test: clientTest(
      'Client repeats a write whose precondition keeps it from applying twice, and calls its failure then unknown',
    ),
  },
  {
    what: 'repeats operations of a batch of a client that may have been applied',
    patches: [
      {
        file: 'src/client/tick-batcher.ts',
        from: "return retryable && (operation.op === 'get' || outcome === 'none')",
        to: "return retryable || (operation.op === 'get' && outcome === 'none')",
      },
    ],
    test: clientTest('An operation of a batch fails alone, and goes once more where it changed nothing'),
  },
  {
    what: 'updates a key without looking whether others have written meanwhile',
    patches: [
      {
        file: 'src/client/connect.ts',
        from: '{ ifMatch: [etag] }',
        to: '{}',
      },
    ],
    test: clientTest('Client.update() reads and merges again when others were faster, and no more than so often'),
  },
]
