/** Memory of a redis-server, where there is one on the PATH: `used_memory` with the key set less `used_memory` without. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Unavailable } from '../case.ts'
import type { Hosted } from '../isolate.ts'
import { KeySet, keyText } from '../key-set.ts'
import { isOnPath } from '../machine.ts'

type Options = { readonly scratch: string; readonly keys: number }

const chunkKeys = 1000

export async function open({ scratch, keys }: Options): Promise<Hosted> {
  if (!isOnPath('redis-server')) throw new Unavailable('redis-server is not on the PATH')
  const path = join(scratch, 'redis.sock')
  const server = spawn('redis-server', ['--port', '0', '--unixsocket', path, '--save', '', '--appendonly', 'no'], {
    stdio: 'ignore',
  })
  try {
    const socket = await connectTo(path)
    const set = new KeySet(keys)
    const before = await usedMemory(socket)
    for (let index = 0; index < keys; index += chunkKeys) {
      const length = Math.min(chunkKeys, keys - index)
      const commands = Array.from({ length }, (_, offset) =>
        setCommand(keyText(index + offset), set.value(index + offset)),
      )
      socket.write(Buffer.concat(commands))
      await replied(socket, length * '+OK\r\n'.length)
    }
    const value = ((await usedMemory(socket)) - before) / keys
    socket.destroy()
    return { run: () => ({ value, operations: keys, counts: {} }), close: () => void server.kill() }
  } catch (error) {
    server.kill()
    throw error
  }
}

async function connectTo(path: string): Promise<Socket> {
  for (let attempt = 0; ; attempt++) {
    const socket = connect(path)
    try {
      await once(socket, 'connect')
      return socket
    } catch (error) {
      if (attempt === 50) throw error
      await delay(100)
    }
  }
}

function setCommand(key: string, value: Buffer): Buffer {
  const head = `*3\r\n$3\r\nSET\r\n$${key.length}\r\n${key}\r\n$${value.length}\r\n`
  return Buffer.concat([Buffer.from(head, 'latin1'), value, Buffer.from('\r\n')])
}

async function replied(socket: Socket, bytes: number): Promise<void> {
  for (let seen = 0; seen < bytes; ) seen += ((await once(socket, 'data')) as [Buffer])[0].length
}

async function usedMemory(socket: Socket): Promise<number> {
  socket.write('INFO memory\r\n')
  const [text] = (await once(socket, 'data')) as [Buffer]
  return Number(/used_memory:(\d+)/.exec(text.toString('latin1'))?.[1])
}
