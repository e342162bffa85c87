/** One thread of the bare fastify server: tells its port and serves until it is terminated. */
import type { AddressInfo } from 'node:net'
import { parentPort, workerData } from 'node:worker_threads'
import fastify from 'fastify'
import { valueBytes } from '../key-set.ts'

const value = Buffer.alloc(valueBytes, 'v')
// About what 100 values of 100 B are as JSON, with their base64, versions and types.
const batchAnswer = JSON.stringify(Array.from({ length: 100 }, () => ({ status: 200, answer: 'v'.repeat(220) })))
const server = fastify()
server.removeAllContentTypeParsers()
server.addContentTypeParser(
  ['application/octet-stream', 'application/json'],
  { parseAs: 'buffer' },
  (_request, body, done) => done(null, body),
)
server.get('/v1/kv/*', (_request, reply) => {
  reply.header('content-type', 'application/octet-stream').send(value)
})
server.put('/v1/kv/*', (request, reply) => {
  if ((request.body as Buffer).length !== valueBytes) throw new Error('The body is incomplete')
  reply.code(204).send()
})
server.post('/v1/batch/*', (_request, reply) => {
  reply.header('content-type', 'application/json').send(batchAnswer)
})

const { port } = workerData as { readonly port: number }
// `reusePort` is an option of net.Server.listen that fastify hands on; its types lag behind.
const listen = { host: '127.0.0.1', port, reusePort: true }
await server.listen(listen)
parentPort?.postMessage((server.server.address() as AddressInfo).port)
