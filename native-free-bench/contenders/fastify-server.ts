/**
 * Bare fastify as a peer: every worker thread listens on the same port (`reusePort`) and does nothing but what HTTP needs:
 * a constant reply to GET, reading the body of PUT, a constant reply to a batch.
 */
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import type { Hosted } from '../isolate.ts'

export async function open({ workers }: { readonly workers: number }): Promise<Hosted> {
  const threads: Worker[] = []
  let port = 0
  for (let count = 0; count < workers; count++) {
    const thread = new Worker(new URL('fastify-thread.ts', import.meta.url), { workerData: { port } })
    threads.push(thread)
    const [message] = (await once(thread, 'message')) as [number]
    port = message
  }
  return {
    facts: { port },
    close: async () => {
      await Promise.all(threads.map((thread) => thread.terminate()))
    },
  }
}
