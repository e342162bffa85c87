/**
 * Entry of the node thread of an embedded store. It is a thread of its own because the application may stall its main thread,
 * and supervision must go on.
 */
import { parentPort, workerData } from 'node:worker_threads'
import { assert } from '../base/assert.ts'
import type { EmbeddedData, FromNode, ToNode } from './embedded-messages.ts'
import { errorMessageOf, NodeHost } from './node-host.ts'

assert(parentPort !== null, 'The node of an embedded store runs in a worker thread')
const port = parentPort
const { config } = workerData as EmbeddedData
const post = (message: FromNode): void => port.postMessage(message)

try {
  const node = await NodeHost.start(
    {
      config,
      http: undefined,
      frontEnd: true,
      salvage: false,
      log: (line) => post({ type: 'log', line }),
      onFatal: (error) => post({ type: 'fatal', error: errorMessageOf(error) }),
    },
    0,
  )
  const { seed, transfer } = node.attachFrontEnd({
    post: (message, ports) => port.postMessage(message, [...ports]),
  })
  port.on('message', (message: ToNode) => {
    if (message.type === 'stop') {
      node.close().then(
        () => post({ type: 'stopped', error: undefined }),
        (error: unknown) => post({ type: 'stopped', error: errorMessageOf(error) }),
      )
      return
    }
    node.admin(message.request).then(
      (result) => post({ type: 'adminReply', id: message.id, error: undefined, result }),
      (error: unknown) => post({ type: 'adminReply', id: message.id, error: errorMessageOf(error), result: undefined }),
    )
  })
  const started: FromNode = {
    type: 'started',
    seed,
    nodeId: node.identity.nodeId,
    recoveredRecords: node.recoveredRecords,
  }
  port.postMessage(started, [...transfer])
} catch (error) {
  post({ type: 'startFailed', error: errorMessageOf(error) })
}
