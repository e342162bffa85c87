/** The text of `/metrics`: Prometheus exposition from counters in shared memory; any thread can render it. */
import { ControlWord, ShardState } from '../storage/shard-memory.ts'

type Gauge = {
  readonly name: string
  readonly help: string
  readonly type: 'counter' | 'gauge'
  readonly word: number
  readonly scale?: number
}

const perShard: readonly Gauge[] = [
  {
    name: 'sunwise_shard_counter_updates_total',
    help: 'Times the shard wrote down its counters, which all the others of this list show: ten a second at rest',
    type: 'counter',
    word: ControlWord.published,
  },
  { name: 'sunwise_shard_writes_total', help: 'Write commands taken', type: 'counter', word: ControlWord.writes },
  {
    name: 'sunwise_shard_log_groups_total',
    help: 'Groups written to the commit log',
    type: 'counter',
    word: ControlWord.groups,
  },
  { name: 'sunwise_shard_log_syncs_total', help: 'Syncs of the commit log', type: 'counter', word: ControlWord.syncs },
  {
    name: 'sunwise_shard_log_bytes_total',
    help: 'Bytes written to the commit log',
    type: 'counter',
    word: ControlWord.logKiB,
    scale: 1024,
  },
  {
    name: 'sunwise_shard_keys',
    help: 'Keys in the table, deleted ones not yet reclaimed included',
    type: 'gauge',
    word: ControlWord.entries,
  },
  { name: 'sunwise_shard_segments', help: 'Memory segments in use', type: 'gauge', word: ControlWord.segmentsUsed },
  {
    name: 'sunwise_shard_live_bytes',
    help: 'Bytes of records that are not superseded',
    type: 'gauge',
    word: ControlWord.liveKiB,
    scale: 1024,
  },
  {
    name: 'sunwise_shard_index_bytes',
    help: 'Bytes of the hash table',
    type: 'gauge',
    word: ControlWord.indexKiB,
    scale: 1024,
  },
  {
    name: 'sunwise_shard_recycled_segments_total',
    help: 'Segments recycled',
    type: 'counter',
    word: ControlWord.recycledSegments,
  },
  {
    name: 'sunwise_shard_expired_total',
    help: 'Versions turned into tombstones by expiry',
    type: 'counter',
    word: ControlWord.expired,
  },
  {
    name: 'sunwise_shard_refused_full_total',
    help: 'Writes refused for want of memory',
    type: 'counter',
    word: ControlWord.refusedFull,
  },
  {
    name: 'sunwise_shard_sibling_warnings_total',
    help: 'Writes that left many siblings',
    type: 'counter',
    word: ControlWord.siblingWarnings,
  },
  {
    name: 'sunwise_shard_owner_reads_total',
    help: 'Reads that had to ask the owner',
    type: 'counter',
    word: ControlWord.ownerReads,
  },
  {
    name: 'sunwise_shard_write_refusal',
    help: '0: writes are taken, 1: memory is full, 2: disk is full',
    type: 'gauge',
    word: ControlWord.writeRefusal,
  },
  { name: 'sunwise_shard_tables', help: 'SSTables', type: 'gauge', word: ControlWord.tables },
  {
    name: 'sunwise_shard_table_bytes',
    help: 'Bytes of SSTables on disk',
    type: 'gauge',
    word: ControlWord.tableKiB,
    scale: 1024,
  },
  {
    name: 'sunwise_shard_table_index_bytes',
    help: 'Bytes of indexes and filters of SSTables in memory',
    type: 'gauge',
    word: ControlWord.tableMetaKiB,
    scale: 1024,
  },
  {
    name: 'sunwise_shard_table_cache_bytes',
    help: 'Bytes that caches of blocks and records of SSTables may use',
    type: 'gauge',
    word: ControlWord.tableCacheKiB,
    scale: 1024,
  },
  {
    name: 'sunwise_shard_table_slow_reads_total',
    help: 'Blocks of SSTables that were read aside, since their disk was slow',
    type: 'counter',
    word: ControlWord.tableLoads,
  },
  {
    name: 'sunwise_shard_compaction_debt_permille',
    help: 'How far merging is behind: at 1000 writers stop',
    type: 'gauge',
    word: ControlWord.debtPermille,
  },
  {
    name: 'sunwise_shard_table_runs',
    help: 'Greatest number of SSTables that one key may be looked up in',
    type: 'gauge',
    word: ControlWord.tableRuns,
  },
  {
    name: 'sunwise_shard_tables_damaged',
    help: 'SSTables with damage: keys that they may have answer TABLE_CORRUPT',
    type: 'gauge',
    word: ControlWord.tablesDamaged,
  },
  {
    name: 'sunwise_shard_merges_over_limit',
    help: 'Merges that are left undone since their result would be larger than a table can be',
    type: 'gauge',
    word: ControlWord.mergesOverLimit,
  },
  {
    name: 'sunwise_shard_tables_checked_bytes_total',
    help: 'Bytes of SSTables that were looked through for damage',
    type: 'counter',
    word: ControlWord.checkedKiB,
    scale: 1024,
  },
  {
    name: 'sunwise_shard_scrub_passes_total',
    help: 'How often all SSTables were looked through for damage',
    type: 'counter',
    word: ControlWord.scrubPasses,
  },
  {
    name: 'sunwise_shard_flushes_total',
    help: 'SSTables written from memory',
    type: 'counter',
    word: ControlWord.flushes,
  },
  {
    name: 'sunwise_shard_compactions_total',
    help: 'Merges of SSTables',
    type: 'counter',
    word: ControlWord.compactions,
  },
  {
    name: 'sunwise_shard_flushed_bytes_total',
    help: 'Bytes of SSTables written from memory',
    type: 'counter',
    word: ControlWord.flushedKiB,
    scale: 1024,
  },
  {
    name: 'sunwise_shard_compacted_bytes_total',
    help: 'Bytes of SSTables written by merges',
    type: 'counter',
    word: ControlWord.compactedKiB,
    scale: 1024,
  },
]

/** What the node thread says of the disk that all shards share; it stands in each of their control blocks. */
const perNode: readonly Gauge[] = [
  {
    name: 'sunwise_disk_full',
    help: '1: the disk has no room, writes that grow are refused',
    type: 'gauge',
    word: ControlWord.diskFull,
  },
  {
    name: 'sunwise_disk_free_bytes',
    help: 'Free bytes of the file system of the data directory, as far as 2 TiB',
    type: 'gauge',
    word: ControlWord.diskFreeKiB,
    scale: 1024,
  },
  {
    name: 'sunwise_disk_reserve_bytes',
    help: 'Bytes on the disk that are kept for flushes and merges on a full disk',
    type: 'gauge',
    word: ControlWord.diskReserveKiB,
    scale: 1024,
  },
]

/** Metrics of all shards, from their control blocks. */
export function renderShardMetrics(controls: readonly Int32Array[]): string {
  let text = '# HELP sunwise_shard_up Whether the shard serves\n# TYPE sunwise_shard_up gauge\n'
  for (const [shard, control] of controls.entries()) {
    const isUp = Atomics.load(control, ControlWord.state) === ShardState.up
    text += `sunwise_shard_up{shard="${shard}"} ${isUp ? 1 : 0}\n`
  }
  for (const { name, help, type, word, scale } of perShard) {
    text += `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`
    for (const [shard, control] of controls.entries()) {
      text += `${name}{shard="${shard}"} ${(Atomics.load(control, word) >>> 0) * (scale ?? 1)}\n`
    }
  }
  for (const { name, help, type, word, scale } of perNode) {
    const value = Atomics.load(controls[0]!, word) * (scale ?? 1)
    text += `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${name} ${value}\n`
  }
  return text
}

/** Metrics of the process and of the thread that renders. */
export function renderProcessMetrics(): string {
  const { rss, heapUsed } = process.memoryUsage()
  return (
    `# HELP process_resident_memory_bytes Resident memory\n# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes ${rss}\n` +
    `# HELP nodejs_heap_used_bytes Heap of the thread that answers\n# TYPE nodejs_heap_used_bytes gauge\nnodejs_heap_used_bytes ${heapUsed}\n` +
    `# HELP process_uptime_seconds Time since the start\n# TYPE process_uptime_seconds gauge\nprocess_uptime_seconds ${process.uptime().toFixed(1)}\n`
  )
}
