/**
 * `/v1/cluster`, `/v1/nodes`, `/v1/ring`, `/v1/explain/{bucket}/{key}`: what the node knows of its cluster, as JSON; and the changes of it that an
 * operator asks for. A node that serves alone answers 409.
 */
import { SunwiseError } from '../../base/errors.ts'
import { Limits } from '../../config.ts'
import type { Callback } from '../../replication/requests.ts'
import type { ClusterChange, ClusterDoor } from '../member-frames.ts'
import type { Exchange } from './exchange.ts'
import type { Front } from './front.ts'
import { parseJson } from './json-elements.ts'
import { findBucket } from './key-routes.ts'
import { parseQuery } from './query.ts'
import { checkBodyEncoding, collectBody } from './request-body.ts'
import { mediaTypeOf } from './request-fields.ts'
import { KeyDecoder } from './target.ts'

/** The path under which keys are explained. */
export const explainPathStart = '/v1/explain/'

/** A change has a handful of short fields. */
const changeMembersMax = 8
const decoder = new KeyDecoder()

function doorOf({ cluster }: Front): ClusterDoor {
  if (cluster !== undefined) return cluster
  throw new SunwiseError('CONFLICT', 'This node serves alone, without a cluster; start it with --peer')
}

function answering(exchange: Exchange): Callback<unknown> {
  return (error, answer) => {
    try {
      if (error === undefined) exchange.answerJson(200, [], JSON.stringify(answer))
      else exchange.crash(error)
    } catch (thrown) {
      exchange.crash(thrown)
    }
  }
}

/** Answers a GET about the cluster as a whole. */
export function answerAbout(front: Front, exchange: Exchange, about: 'cluster' | 'nodes' | 'ring'): void {
  parseQuery(exchange.target, exchange.target.indexOf('?'), [])
  doorOf(front).question({ about }, answering(exchange))
}

/** Answers `GET /v1/explain/{bucket}/{key}`. */
export function answerExplain(front: Front, exchange: Exchange): void {
  const { target } = exchange
  const questionMark = target.indexOf('?')
  const query = parseQuery(target, questionMark, ['key64'])
  const end = questionMark === -1 ? target.length : questionMark
  const slash = target.indexOf('/', explainPathStart.length)
  const door = doorOf(front)
  const bucket = findBucket(front, target.slice(explainPathStart.length, slash))
  const decoded = query.key64 ? decoder.decode64(target, slash + 1, end) : decoder.decode(target, slash + 1, end)
  door.question({ about: 'key', bucketId: bucket.id, key: decoded.slice() }, answering(exchange))
}

/** Answers `POST /v1/cluster/leave` and `/v1/cluster/remove`: 200 when it is agreed on, which is before data has moved. */
export function answerClusterChange(front: Front, exchange: Exchange, type: ClusterChange['type']): void {
  parseQuery(exchange.target, exchange.target.indexOf('?'), [])
  const door = doorOf(front)
  checkBodyEncoding(exchange)
  if (exchange.hasBody && mediaTypeOf(exchange.fields.contentType) !== 'application/json')
    throw new SunwiseError('UNSUPPORTED_MEDIA_TYPE', 'A change of the cluster is application/json')
  collectBody(exchange, Limits.propertiesBytesMax, 'REQUEST_TOO_LARGE', (body) => {
    const limits = {
      bytesMax: Limits.propertiesBytesMax,
      depthMax: Limits.jsonDepthMax,
      membersMax: changeMembersMax,
    }
    door.change(changeOf(type, parseJson(body, limits)), answering(exchange))
  })
}

function changeOf(type: ClusterChange['type'], content: unknown): ClusterChange {
  if (typeof content !== 'object' || content === null || Array.isArray(content))
    throw new SunwiseError('UNPROCESSABLE', 'A change of the cluster is a JSON object')
  const { nodeId, force = false, ...others } = content as Readonly<Record<string, unknown>>
  if (typeof nodeId !== 'string' || !/^[0-9a-f]{16}$/.test(nodeId))
    throw new SunwiseError('UNPROCESSABLE', 'nodeId is not the id of a node: sixteen hexadecimal digits')
  const unknown = Object.keys(others)[0]
  if (unknown !== undefined || (type === 'leave' && 'force' in content))
    throw new SunwiseError('UNPROCESSABLE', `The change has no field "${(unknown ?? 'force').slice(0, 64)}"`)
  if (typeof force !== 'boolean') throw new SunwiseError('UNPROCESSABLE', 'force is neither true nor false')
  return type === 'leave' ? { type, nodeId } : { type, nodeId, force }
}
