package etcdctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/types"

	"flotilla/client/keys"
	"flotilla/internal/fault"
)

func memberCommand() command {
	return command{
		name: "member", summary: "list, add, remove and update the members of the cluster",
		sub: []command{
			{
				name: "list", summary: "list the members, and which of them leads",
				check: func(args []string) error { return wants(len(args) == 0, "No arguments accepted") }, run: memberList,
			},
			{
				name: "add", args: "NAME PEERURL", summary: "make place for a new member and print what it has to be started with",
				check: checkAdd, run: memberAdd,
			},
			{
				name: "remove", args: "ID", summary: "end a membership; the member stops by itself",
				check: func(args []string) error { return wants(len(args) == 1, "Provide a single member ID") }, run: memberRemove,
			},
			{
				name: "update", args: "ID PEERURL[,PEERURL...]", summary: "change where the other members reach a member",
				check: checkUpdate, run: memberUpdate,
			},
		},
	}
}

// failed is a failure of "member": the message alone.
func failed(err error) error {
	var away *keys.UnreachableError
	if errors.As(err, &away) {
		return fault.Code(exitUsage, err)
	}
	var status *keys.StatusError
	switch {
	case !errors.As(err, &status) || status.Status != http.StatusInternalServerError:
	case status.Reason != "":
		err = fault.Hint(err, "%s", status.Reason)
	default: // etcd does not say
		err = fault.Hint(err, "a change that could cost the cluster its majority is refused, also in the first 5s after a start: see 'etcdctl cluster-health' and the log of the member")
	}
	return fault.Code(exitUsage, said{err})
}

// wants is the arguments being as they have to be, or the classic words for that
// they are not.
func wants(ok bool, otherwise string) error {
	if ok {
		return nil
	}
	return failed(classic(otherwise))
}

func checkAdd(args []string) error {
	if err := wants(len(args) == 2, "Provide a name and a single member peerURL"); err != nil {
		return err
	}
	return checkURLs(args[1:])
}

func checkUpdate(args []string) error {
	err := wants(len(args) == 2, "Provide an ID and a list of comma separated peerURL (0xabcd http://example.com,http://example1.com)")
	if err != nil {
		return err
	}
	return checkURLs(strings.Split(args[1], ","))
}

// checkURLs holds peer URLs to what every member demands of them.
func checkURLs(urls []string) error {
	if _, err := types.NewURLs(urls); err != nil {
		return failed(err)
	}
	return nil
}

func memberList(ctx context.Context, s *session, args []string) error {
	members, err := s.client.Members(ctx)
	if err != nil {
		return failed(err)
	}
	leader, err := s.client.Leader(ctx)
	if err != nil {
		return failed(classic(fmt.Sprintf("Failed to get leader:  %v", err)))
	}
	for _, m := range members {
		peers, clients := strings.Join(m.PeerURLs, ","), strings.Join(m.ClientURLs, ",")
		if m.Name == "" {
			fmt.Fprintf(s.env.Stdout, "%s[unstarted]: peerURLs=%s\n", m.ID, peers)
			continue
		}
		fmt.Fprintf(s.env.Stdout, "%s: name=%s peerURLs=%s clientURLs=%s isLeader=%t\n", m.ID, m.Name, peers, clients, m.ID == leader.ID)
	}
	return nil
}

func memberAdd(ctx context.Context, s *session, args []string) error {
	name, url := args[0], args[1]
	added, err := s.client.AddMember(ctx, []string{url})
	if err != nil {
		return failed(err)
	}
	fmt.Fprintf(s.env.Stdout, "Added member named %s with ID %s to cluster\n\n", name, added.ID)
	members, err := s.client.Members(ctx)
	if err != nil {
		return failed(err)
	}
	fmt.Fprintf(s.env.Stdout, "ETCD_NAME=%q\nETCD_INITIAL_CLUSTER=%q\nETCD_INITIAL_CLUSTER_STATE=\"existing\"\n",
		name, initialCluster(members, added.ID, name))
	return nil
}

// initialCluster is what a new member is told of the cluster: NAME=URL for each
// address of each member. The list does not know the new one's name yet.
func initialCluster(members []keys.Member, newID, newName string) string {
	var entries []string
	for _, m := range members {
		name := m.Name
		if m.ID == newID {
			name = newName
		}
		for _, u := range m.PeerURLs {
			entries = append(entries, name+"="+u)
		}
	}
	return strings.Join(entries, ",")
}

func memberRemove(ctx context.Context, s *session, args []string) error {
	id := args[0]
	members, err := s.client.Members(ctx)
	if err != nil {
		return failed(err)
	}
	if !slices.ContainsFunc(members, func(m keys.Member) bool { return m.ID == id }) {
		tellName(s.env.Stderr, members, id)
		return failed(classic(fmt.Sprintf("Couldn't find a member in the cluster with an ID of %s.", id)))
	}
	if err := s.client.RemoveMember(ctx, id); err != nil {
		return failed(err)
	}
	fmt.Fprintf(s.env.Stdout, "Removed member %s from cluster\n", id)
	return nil
}

// tellName says so if what was given for an id is the name of a member.
func tellName(w io.Writer, members []keys.Member, name string) {
	for _, m := range members {
		if m.Name == name {
			fmt.Fprintf(w, "Found a member named %s; if this is correct, please use its ID, eg:\n\tetcdctl member remove %s\n\n", name, m.ID)
		}
	}
}

func memberUpdate(ctx context.Context, s *session, args []string) error {
	if err := s.client.UpdateMember(ctx, args[0], strings.Split(args[1], ",")); err != nil {
		return failed(err)
	}
	fmt.Fprintf(s.env.Stdout, "Updated member with ID %s in cluster\n", args[0])
	return nil
}
