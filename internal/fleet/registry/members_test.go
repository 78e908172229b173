package registry

import (
	"net"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A store of one says that it is well; one that is asked where nobody listens does not.
func TestMembers(t *testing.T) {
	r := open(t)
	got, err := r.Members(t.Context())
	if err != nil || len(got) != 1 || !got[0].Healthy || !got[0].Leads || got[0].URL == "" || got[0].Why != "" {
		t.Errorf("got %+v, %v", got, err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	silent, _ := r.askMember(t.Context(), &pb.Member{Name: "m2", ClientURLs: []string{"http://" + ln.Addr().String()}})
	if silent.Answers || silent.Healthy || !strings.Contains(silent.Why, "refused") {
		t.Errorf("got %+v", silent)
	}
	if fresh, _ := r.askMember(t.Context(), &pb.Member{ID: 0xab}); fresh.Name != "ab" || fresh.Why == "" {
		t.Errorf("got %+v", fresh)
	}
}

// An alarm is told of the member that has raised it.
func TestMembersTellAlarms(t *testing.T) {
	r := open(t)
	list, err := r.client.MemberList(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	id := list.Members[0].ID
	if _, err := pb.NewMaintenanceClient(r.client.ActiveConnection()).Alarm(t.Context(), &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: id, Alarm: pb.AlarmType_NOSPACE}); err != nil {
		t.Fatal(err)
	}
	got, err := r.Members(t.Context())
	if err != nil || len(got) != 1 || !got[0].Answers || got[0].Healthy || strings.Join(got[0].Alarms, " ") != "NOSPACE" {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := r.client.AlarmDisarm(t.Context(), (*clientv3.AlarmMember)(&pb.AlarmMember{MemberID: id, Alarm: pb.AlarmType_NOSPACE})); err != nil {
		t.Fatal(err)
	}
}

func TestHealthText(t *testing.T) {
	for _, c := range []struct {
		code       int
		body, want string
	}{
		{200, `{"health":"true"}`, ""},
		{200, `{"health":"true","reason":""}`, ""},
		{200, `{"health":true}`, ""},
		{503, `{"health":"false","reason":"no leader for 5s"}`, "no leader for 5s"},
		{503, `{"health":"false"}`, "/health is not true: S"},
		{200, `<html>`, "/health is not true: S"},
		{404, `{"health":"true"}`, "/health is not true: S"},
	} {
		if got := healthText("S", c.code, strings.NewReader(c.body)); got != c.want {
			t.Errorf("%d %s: %q, want %q", c.code, c.body, got, c.want)
		}
	}
}

func FuzzReadAlarm(f *testing.F) {
	f.Add("memberID:10276657743932975437 alarm:NOSPACE ")
	f.Add("etcdserver: no leader")
	f.Fuzz(func(t *testing.T, text string) {
		if a, ok := readAlarm(text); ok && (a.MemberID == 0 || a.Alarm == pb.AlarmType_NONE) {
			t.Errorf("%q is %v", text, a)
		}
	})
}
