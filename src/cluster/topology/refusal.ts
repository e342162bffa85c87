/** Why a topology was not changed: an expected outcome, so a value. Codes are for programs, texts for people. */

export type RefusalCode =
  /** The node is a member already, or on its way out. */
  | 'MEMBER_EXISTS'
  | 'MEMBER_UNKNOWN'
  | 'MEMBER_LEAVING'
  | 'BAD_MEMBER'
  | 'TOO_MANY_MEMBERS'
  /** Nobody would be left who could decide. */
  | 'LAST_MEMBER'
  /** What the member holds may be held by nobody else that can be reached. */
  | 'FORCE_NEEDED'
  /** All is as it was asked for. */
  | 'NO_CHANGE'
  | 'BAD_BUCKET'
  | 'BUCKET_IMMUTABLE'
  | 'BUCKET_NEEDED'
  | 'BUCKET_UNKNOWN'
  | 'TOO_MANY_BUCKETS'
  | 'MOVES_UNDER_WAY'
  | 'NOTHING_TO_MOVE'
  | 'MOVES_LEFT'
  | 'NOTHING_TO_FINISH'
  /** The batch has ended, or is at another stage than the one it was to go on from. */
  | 'STAGE_PASSED'

export type Refusal = { readonly refused: RefusalCode; readonly why: string }

export function refusal(refused: RefusalCode, why: string): Refusal {
  return { refused, why }
}

export function isRefusal(outcome: object): outcome is Refusal {
  return 'refused' in outcome
}
