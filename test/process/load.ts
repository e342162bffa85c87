/**
 * Write load over HTTP for process tests: clients with keys of their own overwrite and delete them, one request at a time each,
 * and tell a witness what was acknowledged; and a read of everything, judged by the witness.
 */
import { randomInt } from 'node:crypto'
import { pathOf, problemOf, type Reply, type ServerProcess } from './server-process.ts'
import type { Held, Witness } from './witness.ts'

export type Load = {
  /** Ends the load; settles when every client has. */
  stop(): Promise<void>
  /** Answers that were errors, by code. */
  readonly refusals: Map<string, number>
}

/** What the clients write. */
export type LoadShape = {
  readonly clientKeys: number
  /** Greatest sizes of values, each as likely as the others. */
  readonly sizesMax: readonly number[]
}

/** Mostly small values; the large ones fill log segments, so that some are recycled. */
const mixed: LoadShape = { clientKeys: 24, sizesMax: [10, 10, 10, 10, 3000, 3000, 3000, 3000, 3000, 300_000] }
/** More live data than a small memory holds, so that it goes to tables, and these are merged. */
export const bulky: LoadShape = { clientKeys: 150, sizesMax: [10, 3000, 300_000, 300_000] }
let uniqueValues = 0

/** Starts clients; those whose requests find no server any more wait for `stop`, which must follow soon. */
export function startLoad(
  server: ServerProcess,
  witness: Witness,
  clients: number,
  query = '',
  { clientKeys, sizesMax }: LoadShape = mixed,
): Load {
  let isStopped = false
  const refusals = new Map<string, number>()
  const run = async (client: number): Promise<void> => {
    while (!isStopped) {
      const key = `client ${client} key ${randomInt(clientKeys)}`
      const isDelete = randomInt(4) === 0
      const value = isDelete
        ? undefined
        : `${++uniqueValues} ${'x'.repeat(randomInt(sizesMax[randomInt(sizesMax.length)]!))}`
      let reply: Reply
      try {
        reply = await server.ask(isDelete ? 'DELETE' : 'PUT', pathOf(key) + query, value)
      } catch {
        witness.unknown(key, value)
        if (server.isGone) return
        continue
      }
      noteReply(witness, key, value, reply, refusals)
    }
  }
  const running = Array.from({ length: clients }, (_, client) => run(client))
  return {
    refusals,
    stop: async () => {
      isStopped = true
      await Promise.all(running)
    },
  }
}

/** Tells the witness what an answer to a write means. */
export function noteReply(
  witness: Witness,
  key: string,
  value: Held,
  reply: Reply,
  refusals: Map<string, number>,
): void {
  if (reply.status >= 200 && reply.status < 300) return witness.acknowledged(key, value)
  const { code, outcome } = problemOf(reply)
  refusals.set(code, (refusals.get(code) ?? 0) + 1)
  if (outcome !== 'none') witness.unknown(key, value)
}

/** Reads every key that the witness knows; gives what is wrong. */
export async function readBack(server: ServerProcess, witness: Witness): Promise<string[]> {
  const keys = [...witness.keys]
  const wrong: string[] = []
  const run = async (): Promise<void> => {
    for (let key = keys.pop(); key !== undefined; key = keys.pop()) {
      const reply = await server.ask('GET', pathOf(key))
      if (reply.status !== 200 && reply.status !== 404) {
        wrong.push(`${key} answers ${reply.status}: ${reply.body.toString('utf8').slice(0, 500)}`)
        continue
      }
      const problem = witness.judge(key, reply.status === 200 ? reply.body.toString('utf8') : undefined)
      if (problem !== undefined) wrong.push(problem)
    }
  }
  await Promise.all(Array.from({ length: 8 }, run))
  return wrong
}
