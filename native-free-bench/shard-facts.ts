/**
 * Facts about the shards of the store in this process, from outside: the counters of their control blocks, and what the
 * probe in their threads answers (thread-probe.ts), if it was loaded.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { BroadcastChannel, type Worker } from 'node:worker_threads'
import { ControlWord, type ShardMemory } from '../src/storage/shard-memory.ts'
import type { Totals } from './counts.ts'
import { type ProbeAnswer, type ProbeQuestion, probeChannel } from './thread-probe.ts'

/** Flags of a process whose shard threads shall answer; `callbacks`: they also watch how long callbacks run. */
export function probeFlags(callbacks = false): string[] {
  return ['--import', new URL(callbacks ? 'thread-probe.ts?callbacks' : 'thread-probe.ts', import.meta.url).href]
}

const answerWaitMs = 5000
const pollMs = 5

/** Waits until a shard has published its counters once more: at rest it does so ten times a second. */
async function publishedAnew(control: Int32Array): Promise<void> {
  const before = Atomics.load(control, ControlWord.published)
  const deadlineMs = performance.now() + answerWaitMs
  while (Atomics.load(control, ControlWord.published) === before) {
    if (performance.now() > deadlineMs) throw new Error('A shard did not publish its counters')
    await delay(pollMs)
  }
}

/** What all shards have counted since they started, once their counters say what happened before the call. */
export async function controlTotals(memories: readonly ShardMemory[]): Promise<Totals> {
  await Promise.all(memories.map(({ control }) => publishedAnew(new Int32Array(control))))
  const sum = (word: number): number =>
    memories.reduce((total, { control }) => total + (Atomics.load(new Int32Array(control), word) >>> 0), 0)
  return {
    'log groups': sum(ControlWord.groups),
    syncs: sum(ControlWord.syncs),
    'log B': sum(ControlWord.logKiB) * 1024,
    'owner reads': sum(ControlWord.ownerReads),
  }
}

/** Bytes that records and hash tables take, as the shards account for them; what was recycled is counted as taken. */
export function accountedBytes(memories: readonly ShardMemory[]): { readonly records: number; readonly index: number } {
  const sum = (word: number): number =>
    memories.reduce((total, { control }) => total + (Atomics.load(new Int32Array(control), word) >>> 0), 0)
  return { records: sum(ControlWord.logKiB) * 1024, index: sum(ControlWord.indexKiB) * 1024 }
}

let questions = 0

/** The probes' totals, summed over the shards; of a `longest ...` the maximum. Empty where no probe was loaded. */
export async function probeTotals(shards: number, reset = false): Promise<Totals> {
  if (!process.execArgv.some((flag) => flag.includes('thread-probe'))) return {}
  const channel = new BroadcastChannel(probeChannel)
  const ask = ++questions
  try {
    const answers: ProbeAnswer[] = []
    const all = new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('A shard thread did not answer its probe')), answerWaitMs)
      channel.onmessage = (event) => {
        const message = (event as { data: ProbeAnswer }).data
        if (message.answer !== ask) return
        answers.push(message)
        if (answers.length < shards) return
        clearTimeout(timer)
        resolve()
      }
    })
    const question: ProbeQuestion = { ask, reset }
    channel.postMessage(question)
    await all
    const totals: Record<string, number> = {}
    for (const answer of answers) {
      for (const [name, total] of Object.entries(answer.totals)) {
        const before = totals[name] ?? 0
        totals[name] = name.startsWith('longest') ? Math.max(before, total) : before + total
      }
    }
    return totals
  } finally {
    channel.close()
  }
}

/** Calls `take` with the shared memory of the store that this process opens next, as its node thread sends it. */
export function onShardMemories(take: (memories: readonly ShardMemory[]) => void): void {
  process.on('worker', (worker: Worker) => {
    worker.on('message', (message: { type?: string; seed?: { memories: readonly ShardMemory[] } }) => {
      if (message.type === 'started' && message.seed !== undefined) take(message.seed.memories)
    })
  })
}
