/** The other end of port-echo.ts: answers every frame. When polled, an empty message starts a stretch of asking. */
import { type MessagePort, receiveMessageOnPort, workerData } from 'node:worker_threads'

const { port, polled, stop } = workerData as {
  readonly port: MessagePort
  readonly polled: boolean
  readonly stop: Int32Array
}

port.on('message', () => {
  if (!polled) {
    port.postMessage(1)
    return
  }
  while (Atomics.load(stop, 0) === 0) {
    if (receiveMessageOnPort(port) !== undefined) port.postMessage(1)
  }
})
