// Package keys is the wire format of the v2 keys API.
//
// The order of the fields is the order on the wire.
package keys

import (
	"fmt"
	"time"
)

// The actions of an event.
const (
	Get              = "get"
	Set              = "set"
	Create           = "create"
	Update           = "update"
	Delete           = "delete"
	CompareAndSwap   = "compareAndSwap"
	CompareAndDelete = "compareAndDelete"
	Expire           = "expire"
)

// Event is the answer to a request that succeeded, and what a watch delivers.
type Event struct {
	Action   string `json:"action"`
	Node     *Node  `json:"node,omitempty"`
	PrevNode *Node  `json:"prevNode,omitempty"`
}

// Node is a file or a directory.
type Node struct {
	Key           string     `json:"key,omitempty"`   // absolute; empty for the root
	Value         *string    `json:"value,omitempty"` // nil for directories and in delete events
	Dir           bool       `json:"dir,omitempty"`
	Expiration    *time.Time `json:"expiration,omitempty"` // UTC; nil: permanent
	TTL           int64      `json:"ttl,omitempty"`        // seconds left, rounded up; may be negative
	Nodes         []*Node    `json:"nodes,omitempty"`      // children, where the request asks for them
	ModifiedIndex uint64     `json:"modifiedIndex,omitempty"`
	CreatedIndex  uint64     `json:"createdIndex,omitempty"`
}

// Error is the answer to a request that failed.
type Error struct {
	ErrorCode int    `json:"errorCode"`
	Message   string `json:"message"`
	Cause     string `json:"cause,omitempty"`
	Index     uint64 `json:"index"`
}

// Error writes the error as the classic command line did:
// "code: message (cause) [index]".
func (e *Error) Error() string {
	return fmt.Sprintf("%d: %s (%s) [%d]", e.ErrorCode, e.Message, e.Cause, e.Index)
}

// The error codes in use; the HTTP status that goes with each is in Status.
const (
	CodeKeyNotFound  = 100
	CodeTestFailed   = 101
	CodeNotFile      = 102
	CodeNotDir       = 104
	CodeNodeExist    = 105
	CodeRootReadOnly = 107
	CodeDirNotEmpty  = 108
	CodeUnauthorized = 110

	CodePrevValueRequired = 201
	CodeTTLNaN            = 202
	CodeIndexNaN          = 203
	CodeInvalidField      = 209
	CodeInvalidForm       = 210
	CodeRefreshValue      = 211
	CodeRefreshTTL        = 212

	CodeRaftInternal = 300
	CodeLeaderElect  = 301

	CodeWatcherCleared = 400
	CodeEventIndexGone = 401
)

var messages = map[int]string{
	CodeKeyNotFound:       "Key not found",
	CodeTestFailed:        "Compare failed",
	CodeNotFile:           "Not a file",
	CodeNotDir:            "Not a directory",
	CodeNodeExist:         "Key already exists",
	CodeRootReadOnly:      "Root is read only",
	CodeDirNotEmpty:       "Directory not empty",
	CodeUnauthorized:      "The request requires user authentication",
	CodePrevValueRequired: "PrevValue is Required in POST form",
	CodeTTLNaN:            "The given TTL in POST form is not a number",
	CodeIndexNaN:          "The given index in POST form is not a number",
	CodeInvalidField:      "Invalid field",
	CodeInvalidForm:       "Invalid POST form",
	CodeRefreshValue:      "Value provided on refresh",
	CodeRefreshTTL:        "A TTL must be provided on refresh",
	CodeRaftInternal:      "Raft Internal Error",
	CodeLeaderElect:       "During Leader Election",
	CodeWatcherCleared:    "watcher is cleared due to etcd recovery",
	CodeEventIndexGone:    "The event in requested index is outdated and cleared",
}

// NewError makes the error with the code's own message.
func NewError(code int, cause string, index uint64) *Error {
	return &Error{ErrorCode: code, Message: messages[code], Cause: cause, Index: index}
}

// Status is the HTTP status that an answer with this error has.
func (e *Error) Status() int {
	switch e.ErrorCode {
	case CodeKeyNotFound:
		return 404
	case CodeNotFile, CodeDirNotEmpty:
		return 403
	case CodeTestFailed, CodeNodeExist:
		return 412
	case CodeUnauthorized:
		return 401
	case CodeRaftInternal, CodeLeaderElect:
		return 500
	}
	return 400
}
